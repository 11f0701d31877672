"""Every layer, activation, loss and container; each module lists its own in ``__all__``."""

from graphflow.nn.modules import (
    activation,
    attention,
    batchnorm,
    containers,
    conv,
    distance,
    dropout,
    linear,
    loss,
    normalization,
    padding,
    parameter_containers,
    pooling,
    positions,
    recurrent,
    recurrent_cells,
    shaping,
    sparse,
    transformer,
    upsampling,
)
from graphflow.nn.modules.activation import *
from graphflow.nn.modules.attention import *
from graphflow.nn.modules.batchnorm import *
from graphflow.nn.modules.containers import *
from graphflow.nn.modules.conv import *
from graphflow.nn.modules.distance import *
from graphflow.nn.modules.dropout import *
from graphflow.nn.modules.linear import *
from graphflow.nn.modules.loss import *
from graphflow.nn.modules.normalization import *
from graphflow.nn.modules.padding import *
from graphflow.nn.modules.parameter_containers import *
from graphflow.nn.modules.pooling import *
from graphflow.nn.modules.positions import *
from graphflow.nn.modules.recurrent import *
from graphflow.nn.modules.recurrent_cells import *
from graphflow.nn.modules.shaping import *
from graphflow.nn.modules.sparse import *
from graphflow.nn.modules.transformer import *
from graphflow.nn.modules.upsampling import *

__all__ = []
__all__ += activation.__all__
__all__ += batchnorm.__all__
__all__ += containers.__all__
__all__ += dropout.__all__
__all__ += linear.__all__
__all__ += loss.__all__
__all__ += normalization.__all__
__all__ += padding.__all__
__all__ += parameter_containers.__all__
__all__ += shaping.__all__
__all__ += sparse.__all__
__all__ += conv.__all__
__all__ += distance.__all__
__all__ += pooling.__all__
__all__ += recurrent.__all__
__all__ += recurrent_cells.__all__
__all__ += upsampling.__all__
__all__ += attention.__all__
__all__ += transformer.__all__
__all__ += positions.__all__

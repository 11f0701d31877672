"""CUDA devices: whether there are any, and the memory that tensors take there."""

from typing import TYPE_CHECKING

from graphflow.cuda import devices
from graphflow.cuda.devices import *
from graphflow.later import importer

if TYPE_CHECKING:
    from graphflow.cuda import amp
else:
    __getattr__ = importer(globals(), {"amp": "graphflow.cuda.amp"})

__all__ = ["amp"]
__all__ += devices.__all__

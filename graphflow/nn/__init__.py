"""Neural networks: modules, parameters, initialisation, functional forms."""

from typing import TYPE_CHECKING, Any

from graphflow.later import importer
from graphflow.nn import functional as functional
from graphflow.nn import init as init
from graphflow.nn import modules
from graphflow.nn.module import Module as Module
from graphflow.nn.parameter import Buffer as Buffer
from graphflow.nn.parameter import Parameter as Parameter

_OWN = ["Buffer", "Module", "Parameter", "attention", "functional", "init", "utils"]

if TYPE_CHECKING:
    from graphflow.nn import attention as attention
    from graphflow.nn import grad as grad
    from graphflow.nn import intrinsic as intrinsic
    from graphflow.nn import parallel as parallel
    from graphflow.nn import qat as qat
    from graphflow.nn import quantized as quantized
    from graphflow.nn import utils as utils
    from graphflow.nn.modules import *
    from graphflow.nn.parallel import DataParallel as DataParallel
    from graphflow.nn.uninitialized import UninitializedBuffer as UninitializedBuffer
    from graphflow.nn.uninitialized import UninitializedParameter as UninitializedParameter
else:

    def _layer(name: str) -> Any:
        """What the modules of layers call ``name``."""
        found = getattr(modules, name)
        return [*_OWN, *found] if name == "__all__" else found

    __getattr__ = importer(
        globals(),
        {
            "DataParallel": "graphflow.nn.parallel:DataParallel",
            "UninitializedBuffer": "graphflow.nn.uninitialized:UninitializedBuffer",
            "UninitializedParameter": "graphflow.nn.uninitialized:UninitializedParameter",
            "attention": "graphflow.nn.attention",
            "grad": "graphflow.nn.grad",
            "intrinsic": "graphflow.nn.intrinsic",
            "parallel": "graphflow.nn.parallel",
            "qat": "graphflow.nn.qat",
            "quantized": "graphflow.nn.quantized",
            "utils": "graphflow.nn.utils",
        },
        _layer,
    )

    def __dir__() -> list[str]:
        return sorted({*globals(), *_OWN, *modules.__all__, "DataParallel", "parallel"})

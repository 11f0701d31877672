"""Neural networks: modules, parameters, initialisation, functional forms."""

from typing import TYPE_CHECKING, Any

from graphflow.later import importer
from graphflow.nn import attention, functional, init, modules, utils
from graphflow.nn.module import Module
from graphflow.nn.modules import *
from graphflow.nn.parameter import Buffer, Parameter

if TYPE_CHECKING:  # the layers' names are gathered at run time, out of mypy's sight

    def __getattr__(name: str) -> Any: ...

else:  # for several processes only: imported when first asked for
    __getattr__ = importer(
        globals(),
        {
            "parallel": "graphflow.nn.parallel",
            "DataParallel": "graphflow.nn.parallel:DataParallel",
        },
    )


__all__ = ["Buffer", "Module", "Parameter", "attention", "functional", "init", "utils"]
__all__ += modules.__all__

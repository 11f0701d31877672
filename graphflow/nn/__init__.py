"""Neural networks: modules, parameters, initialisation, functional forms."""

from graphflow.nn import functional, init
from graphflow.nn.module import Module
from graphflow.nn.modules import *
from graphflow.nn.modules import __all__ as _modules
from graphflow.nn.parameter import Buffer, Parameter

__all__ = ["Buffer", "Module", "Parameter", "functional", "init", *_modules]

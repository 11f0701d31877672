"""Containers, by the address that scripts import them from."""

from graphflow.nn.modules.containers import ModuleDict, ModuleList, Sequential
from graphflow.nn.modules.parameter_containers import ParameterDict, ParameterList

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]

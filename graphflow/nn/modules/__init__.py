"""Every layer, activation, loss and container."""

from graphflow.nn.modules.activation import (
    ELU,
    GELU,
    Dropout,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from graphflow.nn.modules.containers import ModuleDict, ModuleList, Sequential
from graphflow.nn.modules.linear import Flatten, Identity, LayerNorm, Linear, Unflatten
from graphflow.nn.modules.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from graphflow.nn.modules.parameter_containers import ParameterDict, ParameterList

__all__ = [
    "ELU", "GELU", "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "Dropout", "Flatten",
    "Identity", "L1Loss", "LayerNorm", "LeakyReLU", "Linear", "LogSigmoid", "LogSoftmax",
    "MSELoss", "Mish", "ModuleDict", "ModuleList", "NLLLoss", "ParameterDict", "ParameterList",
    "ReLU", "Sequential", "SiLU", "Sigmoid", "SmoothL1Loss", "Softmax", "Softplus", "Tanh", "Unflatten",
]  # fmt: skip

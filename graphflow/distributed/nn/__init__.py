"""Collectives that gradients flow through."""

from graphflow.distributed.nn import functional
from graphflow.distributed.nn.functional import all_reduce

__all__ = ["all_reduce", "functional"]

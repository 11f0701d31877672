"""Every primitive, one record each; importing this registers them all."""

from graphflow.ir.ops import (
    contract,
    elementwise_binary,
    elementwise_unary,
    generators,
    indexing,
    leaf,
    reduce,
    shape,
    slicing,
)

__all__ = [
    "contract",
    "elementwise_binary",
    "elementwise_unary",
    "generators",
    "indexing",
    "leaf",
    "reduce",
    "shape",
    "slicing",
]

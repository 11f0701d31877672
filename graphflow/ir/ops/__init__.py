"""Every primitive, one record each; importing this registers them all."""

from graphflow.ir.ops import (
    contract,
    control,
    elementwise_binary,
    elementwise_unary,
    generators,
    indexing,
    leaf,
    reduce,
    scan,
    scatter,
    search,
    shape,
    slicing,
    sort,
    special,
    window,
)

__all__ = [
    "contract",
    "control",
    "elementwise_binary",
    "elementwise_unary",
    "generators",
    "indexing",
    "leaf",
    "reduce",
    "scan",
    "scatter",
    "search",
    "shape",
    "slicing",
    "sort",
    "special",
    "window",
]

"""Every primitive, one record each; importing this registers the common ones."""

from graphflow.ir.op import register_later
from graphflow.ir.ops import (
    contract,
    control,
    elementwise_binary,
    elementwise_unary,
    generators,
    indexing,
    leaf,
    reduce,
    shape,
    slicing,
)

register_later(
    [
        "graphflow.ir.ops.pick",
        "graphflow.ir.ops.softmax",
        "graphflow.ir.ops.standardise",
        "graphflow.ir.ops.scatter",
        "graphflow.ir.ops.convolution",
        "graphflow.ir.ops.window",
        "graphflow.ir.ops.bits",
        "graphflow.ir.ops.effects",
        "graphflow.ir.ops.scan",
        "graphflow.ir.ops.search",
        "graphflow.ir.ops.sort",
        "graphflow.ir.ops.strided",
        "graphflow.ir.ops.diagonal",
        "graphflow.ir.ops.collectives",
        "graphflow.ir.ops.parts",
        "graphflow.ir.ops.complex_numbers",
        "graphflow.ir.ops.fourier",
        "graphflow.ir.ops.winograd",
        "graphflow.ir.ops.factorisations",
        "graphflow.ir.ops.equations",
        "graphflow.ir.ops.indefinite",
        "graphflow.ir.ops.special",
        "graphflow.ir.ops.attention",
    ]
)

"""Matrix products and products over several axes: register tiles and the calls that run them."""

from graphflow.codegen.contraction.axes import product_calls
from graphflow.codegen.contraction.call import adds_onto, contraction_calls
from graphflow.codegen.contraction.small_integers import (
    is_small,
    small_calls,
    takes_small_epilogue,
)
from graphflow.codegen.contraction.winograd import takes_epilogue, winograd_calls

__all__ = [
    "adds_onto", "contraction_calls", "is_small", "product_calls", "small_calls", "takes_epilogue",
    "takes_small_epilogue", "winograd_calls",
]  # fmt: skip

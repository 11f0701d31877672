"""Matrix products and products over several axes: register tiles and the calls that run them."""

from graphflow.codegen.contraction.axes import product_call
from graphflow.codegen.contraction.call import contraction_call
from graphflow.codegen.contraction.winograd import takes_epilogue, winograd_calls

__all__ = ["contraction_call", "product_call", "takes_epilogue", "winograd_calls"]

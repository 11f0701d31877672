"""Matrix products: register-tiled kernels and the calls that run them."""

from graphflow.codegen.contraction.call import contraction_call

__all__ = ["contraction_call"]

"""PyTorch's address of what helps to train with rounding; there are no fused layers here."""

from graphflow.nn.intrinsic import qat

__all__ = ["qat"]

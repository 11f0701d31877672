"""PyTorch's newer address of :mod:`graphflow.quantization`."""

from graphflow import quantization

__all__ = ["quantization"]

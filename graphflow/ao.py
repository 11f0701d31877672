"""PyTorch's newer address of :mod:`graphflow.quantization` and of quantised layers."""

from graphflow import nn, quantization

__all__ = ["nn", "quantization"]

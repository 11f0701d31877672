"""Layers that are trained with rounding, at PyTorch's address."""

from graphflow.quantization.training import Conv1d, Conv2d, Conv3d, Linear

__all__ = ["Conv1d", "Conv2d", "Conv3d", "Linear"]

"""All files that enter functions in the table of those that have an operator."""

from importlib import import_module

from graphflow.onnx.exporting.composites import COMPOSITES

import_module("graphflow.onnx.exporting.quantized")

__all__ = ["COMPOSITES"]

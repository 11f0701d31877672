"""ONNX files: read as programs (:func:`load`), written from them (:func:`export`).

Needs the package ``onnx`` (``pip install 'graphflow[onnx]'``).
"""

from graphflow.onnx.export import export
from graphflow.onnx.keywords import OperatorExportTypes, TrainingMode, is_in_onnx_export
from graphflow.onnx.load import load, load_graph, load_module

__all__ = [
    "OperatorExportTypes", "TrainingMode", "export", "is_in_onnx_export", "load", "load_graph",
    "load_module",
]  # fmt: skip

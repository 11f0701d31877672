"""ONNX files: read as programs (:func:`load`), written from them (:func:`export`).

Needs the package ``onnx`` (``pip install 'graphflow[onnx]'``).
"""

from graphflow.onnx.export import export
from graphflow.onnx.keywords import is_in_onnx_export
from graphflow.onnx.load import load, load_graph, load_module

__all__ = ["export", "is_in_onnx_export", "load", "load_graph", "load_module"]

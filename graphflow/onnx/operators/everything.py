"""All files of operators: importing this module fills the table."""

from importlib import import_module

from graphflow.onnx.operators.table import OPERATORS

SUBJECTS = (
    "activations", "control", "elementwise", "images", "indexing", "linear", "networks",
    "normalization", "quantization", "recurrent", "reductions", "sequences", "shaping", "signal",
    "values",
)  # fmt: skip

for _subject in SUBJECTS:
    import_module(f"graphflow.onnx.operators.{_subject}")

__all__ = ["OPERATORS", "SUBJECTS"]

"""PyTorch's options of ``onnx.export``, as our own say them; and whether an export is under way."""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


class TrainingMode(enum.IntEnum):
    """Values of ``training``, which has no effect: a module is exported in the mode it is in."""

    EVAL = 0
    PRESERVE = 1
    TRAINING = 2


class OperatorExportTypes(enum.IntEnum):
    """Values of ``operator_export_type``, which has no effect: operators are ONNX's."""

    ONNX = 0
    ONNX_ATEN = 1
    ONNX_ATEN_FALLBACK = 2
    ONNX_FALLTHROUGH = 3


_WITHOUT_EFFECT = frozenset(
    """
    artifacts_dir custom_opsets do_constant_folding dump_exported_program dynamo fallback
    keep_initializers_as_inputs operator_export_type optimize profile report training verbose verify
    """.split()
)
"""What chooses among PyTorch's ways to export, or says how to write what there is one way for."""


def translated(given: Mapping[str, Any], output_names: Sequence[str] | None) -> dict[str, Any]:
    """Our options for PyTorch's; TypeError names what is no option of either."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name == "f":
            found["path"] = value
        elif name == "opset_version":
            if value is not None:
                found["opset"] = value
        elif name == "dynamic_axes":
            found["dynamic"] = _axes(value or {}, output_names or ())
        elif name == "external_data":
            found["external"] = None if value else False  # weights go apart where they are large
        elif name == "export_params" and not value:
            raise ValueError("onnx.export writes the parameters: export_params=False is not there")
        elif name not in _WITHOUT_EFFECT and name != "export_params":
            raise TypeError(f"onnx.export() got an unexpected keyword argument {name!r}")
    return found


def _axes(axes: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, dict[int, str]]:
    """Names of the inputs' dynamic axes; those of the results follow from them."""
    return {
        name: dict(own) if isinstance(own, Mapping) else {d: f"{name}_dim_{d}" for d in own}
        for name, own in axes.items()
        if name not in outputs
    }


class _Export(threading.local):
    under_way = False


_export = _Export()


def is_in_onnx_export() -> bool:
    """Whether the running code is being exported."""
    return _export.under_way


@contextmanager
def exporting() -> Iterator[None]:
    """While a function is traced for a file."""
    before, _export.under_way = _export.under_way, True
    try:
        yield
    finally:
        _export.under_way = before

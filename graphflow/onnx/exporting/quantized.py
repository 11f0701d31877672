"""Layers of 8-bit integers in ONNX: numbers, quantised and taken back, before float operators.

``QuantizeLinear`` and ``DequantizeLinear`` around an operator of numbers is how ONNX says that
the operator is one of integers; a runtime that has it takes them together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.ir.node import Node
from graphflow.ir.types import float32
from graphflow.onnx.exporting.composites import Arguments, composite
from graphflow.onnx.exporting.writer import Writer
from graphflow.quantization import arithmetic


def _calibrated(a: Arguments) -> bool:
    """Whether the range of what comes in is known; otherwise the arithmetic is written out."""
    return isinstance(a.scale, float) and a.x.dtype is float32


def _rounded(w: Writer, a: Arguments) -> str:
    """What comes in, as the numbers that integers stand for."""
    scale, zero = w.constant(a.scale, np.float32), w.constant(a.zero, np.int8)
    return str(w.add("DequantizeLinear", w.add("QuantizeLinear", a.x, scale, zero), scale, zero))


def _weight(w: Writer, weight: Any) -> str:
    """The numbers that a weight [out, …] stands for: an ``arithmetic.Weight`` of nodes."""
    zero = w.constant(np.zeros(weight.scale.shape, np.int8))
    options = {"axis": 0} if weight.scale.shape else {}
    return str(w.add("DequantizeLinear", weight.whole, weight.scale, zero, **options))


def _given(bias: Node | None) -> list[Node]:
    return [] if bias is None else [bias]


@composite(arithmetic.rounded, name="quantized rounded", when=_calibrated)
def _integers(w: Writer, a: Arguments) -> Any:
    return _rounded(w, a)


@composite(arithmetic.linear, name="quantized linear", when=_calibrated)
def _linear(w: Writer, a: Arguments) -> Any:
    x, weight = _rounded(w, a), _weight(w, a.weight)
    if len(a.x.shape) == 2:
        return w.add("Gemm", x, weight, *_given(a.bias), transB=1)
    made = w.add("MatMul", x, w.add("Transpose", weight, perm=[1, 0]))
    return made if a.bias is None else w.add("Add", made, a.bias)


@composite(arithmetic.convolve, name="quantized convolve", when=_calibrated)
def _convolve(w: Writer, a: Arguments) -> Any:
    return w.add(
        "Conv", _rounded(w, a), _weight(w, a.weight), *_given(a.bias), group=a.groups,
        strides=list(a.steps), pads=[*a.low, *a.high], dilations=list(a.dilations),
        kernel_shape=list(a.weight.whole.shape[2:]),
    )  # fmt: skip

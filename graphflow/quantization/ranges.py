"""Ranges that calibration chose: a scale and a zero point for int8, kept as Python's numbers."""

from __future__ import annotations

from typing import Any, ClassVar

from graphflow.functions.creation import tensor
from graphflow.ir.types import float32, int32, uint8
from graphflow.nn.module import Module
from graphflow.records import NamedTuple


class Range(NamedTuple):
    """``number = (integer - zero_point) * scale``, for integers of int8."""

    scale: float
    zero_point: int


def input_range(observer: Any) -> Range:
    """Scale and zero point of what comes in, for int8, whichever dtype ``observer`` has."""
    scale, zero_point = observer.calculate_qparams()
    if scale.ndim:
        raise ValueError("what comes into a layer has one scale: use an observer of tensors")
    shift = 128 if observer.dtype is uint8 else 0
    return Range(float(scale.item()), int(zero_point.item()) - shift)


class Ranged(Module):
    """A module whose numbers ``scales`` and ``zero_points`` are part of its state."""

    scales: ClassVar[tuple[str, ...]] = ("scale",)
    zero_points: ClassVar[tuple[str, ...]] = ("zero_point",)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for names, dtype in ((self.scales, float32), (self.zero_points, int32)):
            for name in names:
                if getattr(self, name) is not None:
                    destination[prefix + name] = tensor(getattr(self, name), dtype=dtype)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local: Any, strict: bool, missing: list[str],
        *rest: Any,
    ) -> None:  # fmt: skip
        given = dict(state_dict)
        for names, kind in ((self.scales, float), (self.zero_points, int)):
            for name in names:
                value = given.pop(prefix + name, None)
                if value is not None:
                    setattr(self, name, kind(value.item()))
                elif getattr(self, name) is not None:
                    missing.append(prefix + name)
        super()._load_from_state_dict(given, prefix, local, strict, missing, *rest)

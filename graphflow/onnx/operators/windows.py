"""Where ONNX puts windows: ``auto_pad``, padding that differs by side, ``ceil_mode``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.records import dataclass

Ints = tuple[Any, ...]


@dataclass(frozen=True)
class Windows:
    """Windows over the spatial axes: sizes, steps, dilations, padding before and after."""

    sizes: Ints
    steps: Ints
    dilations: Ints
    low: Ints
    high: Ints

    @property
    def spans(self) -> Ints:
        """Elements from the first to the last of a window."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilations, self.sizes))

    @property
    def even(self) -> bool:
        """Whether padding is the same on both sides."""
        return self.low == self.high


def windows_of(
    extents: Sequence[Any], sizes: Sequence[int], strides: Any, dilations: Any, pads: Any,
    auto_pad: str, ceil_mode: int = 0,
) -> Windows:  # fmt: skip
    """The windows of an operator's attributes over axes of these extents."""
    dims = len(sizes)
    steps = tuple(strides) if strides else (1,) * dims
    spacing = tuple(dilations) if dilations else (1,) * dims
    spans = tuple(d * (k - 1) + 1 for d, k in zip(spacing, sizes))
    low, high = _edges(extents, spans, steps, pads, auto_pad)
    if ceil_mode:
        high = tuple(
            _rounded_up(*part) for part in zip(extents, spans, steps, low, high, strict=True)
        )
    return Windows(tuple(sizes), steps, spacing, low, high)


def _edges(
    extents: Sequence[Any], spans: Ints, steps: Ints, pads: Any, auto_pad: str
) -> tuple[Ints, Ints]:
    dims = len(spans)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        parts = zip(extents, spans, steps)
        wanted = [max(((n + s - 1) // s - 1) * s + span - n, 0) for n, span, s in parts]
        smaller = tuple(w // 2 for w in wanted)
        larger = tuple(w - w // 2 for w in wanted)
        return (smaller, larger) if auto_pad == "SAME_UPPER" else (larger, smaller)
    if auto_pad == "VALID" or not pads:
        return (0,) * dims, (0,) * dims
    return tuple(pads[:dims]), tuple(pads[dims:])


def _rounded_up(extent: Any, span: int, step: int, low: int, high: int) -> Any:
    """Padding after an axis for one more window, if that would begin inside."""
    rest = (extent + low + high - span) % step
    begin = (extent + low + high - span) // step * step + step
    if rest == 0 or begin >= extent + low:
        return high
    return high + step - rest

"""The limits of element types, and which conversions keep what a number is."""

from __future__ import annotations

from typing import Any

from graphflow.errors import DTypeError
from graphflow.ir.types import DType, keeps_kind
from graphflow.promotion import get_default_dtype


class iinfo:
    """Limits of an integer dtype: ``bits``, ``min``, ``max``, ``dtype``."""

    def __init__(self, type: DType) -> None:
        if not isinstance(type, DType) or type.kind not in ("int", "uint"):
            raise DTypeError(f"iinfo takes an integer dtype, not {type!r}")
        self.bits = 8 * type.itemsize
        self.dtype = type.name
        self.max = 2 ** (self.bits - (type.kind == "int")) - 1
        self.min = -self.max - 1 if type.kind == "int" else 0

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


class finfo:
    """Limits of a floating dtype: ``bits``, ``eps``, ``max``, ``min``, ``tiny``, ``resolution``."""

    def __init__(self, type: DType | None = None) -> None:
        chosen = get_default_dtype() if type is None else type
        if not isinstance(chosen, DType) or not (chosen.is_floating_point or chosen.is_complex):
            raise DTypeError(f"finfo takes a floating dtype, not {type!r}")
        limits = _limits(chosen)
        self.bits = int(limits.bits)
        self.dtype = str(limits.dtype)
        self.eps, self.max, self.min = float(limits.eps), float(limits.max), float(limits.min)
        self.tiny = self.smallest_normal = float(limits.smallest_normal)
        self.resolution = float(limits.resolution)

    def __repr__(self) -> str:
        facts = ("resolution", "min", "max", "eps", "smallest_normal", "tiny", "dtype")
        return f"finfo({', '.join(f'{name}={getattr(self, name)}' for name in facts)})"


def _limits(dtype: DType) -> Any:
    if dtype.name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.finfo(dtype.numpy)
    import numpy as np

    return np.finfo(dtype.numpy)


def can_cast(from_: DType, to: DType) -> bool:
    """Whether an in-place result of ``from_`` may be written to a tensor of ``to``."""
    return keeps_kind(from_, to)

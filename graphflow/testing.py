"""``assert_close`` and what belongs to it, by the names of ``torch.testing``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.functions.creation import as_tensor
from graphflow.ir import types as T
from graphflow.promotion import promote_types
from graphflow.rng import rand, randint
from graphflow.tensor import Tensor

__all__ = ["assert_allclose", "assert_close", "make_tensor"]

_TOLERANCES = {
    T.float16: (1e-3, 1e-5), T.bfloat16: (1.6e-2, 1e-5), T.float32: (1.3e-6, 1e-5),
    T.float64: (1e-7, 1e-7), T.complex64: (1.3e-6, 1e-5), T.complex128: (1e-7, 1e-7),
}  # fmt: skip
"""Relative and absolute, PyTorch's; whole numbers must be equal."""


def assert_close(
    actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None,
    atol: float | None = None, equal_nan: bool = False, check_device: bool = True,
    check_dtype: bool = True, check_layout: bool = True, check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:  # fmt: skip
    """Raise AssertionError unless ``|actual - expected| <= atol + rtol * |expected|`` everywhere.

    Tensors, numbers, and sequences and mappings of them.  Without ``rtol`` and ``atol``, which
    are given together, tolerances are those of the dtype, the larger of the two.  Shapes, and
    where asked for devices, dtypes and strides, must be the same too.
    """
    if (rtol is None) != (atol is None):
        raise ValueError("rtol and atol must be given both or not at all")
    asked = {"device": check_device, "dtype": check_dtype, "stride": check_stride}
    problem = _difference(actual, expected, rtol, atol, equal_nan, asked, "")
    if problem:
        if callable(msg):
            problem = msg(problem)
        raise AssertionError(problem if msg is None or callable(msg) else msg)


def assert_allclose(
    actual: Any, expected: Any, rtol: float | None = None, atol: float | None = None,
    equal_nan: bool = True, msg: str = "",
) -> None:  # fmt: skip
    """The older :func:`assert_close`: dtypes and devices may differ, NaN equals NaN."""
    free = {"check_device": False, "check_dtype": False, "equal_nan": equal_nan}
    assert_close(actual, expected, rtol=rtol, atol=atol, msg=msg or None, **free)


def _difference(
    actual: Any, expected: Any, rtol: Any, atol: Any, equal_nan: bool, asked: dict[str, bool],
    where: str,
) -> str:  # fmt: skip
    """What differs first; "" if nothing does."""
    rest = (rtol, atol, equal_nan, asked)
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if set(actual) != set(expected):
            return f"The keys of the mappings do not match{where}: {[*actual]} != {[*expected]}"
        pairs = [(actual[key], expected[key], f"{where}[{key!r}]") for key in expected]
    elif _are(Sequence, actual, expected):
        if len(actual) != len(expected):
            return f"The lengths do not match{where}: {len(actual)} != {len(expected)}"
        pairs = [(a, e, f"{where}[{i}]") for i, (a, e) in enumerate(zip(actual, expected))]
    else:
        return _of_tensors(actual, expected, *rest, where)
    found = (_difference(a, e, *rest, place) for a, e, place in pairs)
    return next(filter(None, found), "")


def _are(kind: type, *values: Any) -> bool:
    return all(isinstance(v, kind) and not isinstance(v, str | bytes) for v in values)


def _of_tensors(
    actual: Any, expected: Any, rtol: Any, atol: Any, equal_nan: bool, asked: dict[str, bool],
    where: str,
) -> str:  # fmt: skip
    if actual is None and expected is None:
        return ""
    numbers = not isinstance(actual, Tensor) and not isinstance(expected, Tensor)
    a, e = (x.detach() if isinstance(x, Tensor) else _number(x, where) for x in (actual, expected))
    if a.shape != e.shape:
        return f"The shapes do not match{where}: {tuple(a.shape)} != {tuple(e.shape)}."
    for name in ("device", "dtype"):
        if asked[name] and not numbers and getattr(a, name) != getattr(e, name):
            return f"The {name}s do not match{where}: {getattr(a, name)} != {getattr(e, name)}."
    if asked["stride"] and a.stride() != e.stride():
        return f"The strides do not match{where}: {a.stride()} != {e.stride()}."
    limits = [_TOLERANCES.get(x.dtype, (0.0, 0.0)) for x in (a, e)]
    relative, absolute = (
        (max(kinds) for kinds in zip(*limits)) if rtol is None else (rtol, atol)
    )  # fmt: skip
    return _of_arrays(a, e, relative, absolute, equal_nan, where)


def _number(value: Any, where: str) -> Tensor:
    if not isinstance(value, bool | int | float | complex | np.ndarray | np.generic):
        raise TypeError(f"assert_close compares tensors and numbers, not {value!r}{where}")
    dtype = {float: T.float64, complex: T.complex128}.get(type(value))
    return as_tensor(value, dtype=dtype)


def _of_arrays(a: Tensor, e: Tensor, rtol: float, atol: float, equal_nan: bool, where: str) -> str:
    common = promote_types(a.dtype, e.dtype)
    exact = common.kind in ("int", "uint", "bool")
    wide = common if exact else T.complex128 if common.is_complex else T.float64
    found, wanted = (x.cpu().to(wide).numpy() for x in (a, e))
    near = np.isclose(found, wanted, rtol, atol, equal_nan)
    if near.all():
        return ""
    with np.errstate(all="ignore"):
        apart = np.abs(found.astype(complex) - wanted) if not exact else _whole(found, wanted)
        worst = np.unravel_index(np.argmax(np.where(near, -1.0, np.nan_to_num(apart))), near.shape)
        share = apart[worst] / np.abs(wanted[worst])
    far = near.size - np.count_nonzero(near)
    if not near.ndim:
        head = f"Scalars are not close{where}: {found} != {wanted}"
    else:
        head = (
            f"Tensor-likes are not close{where}: {far} of {near.size} elements differ "
            f"({far / near.size:.1%}), most at {tuple(map(int, worst))}"
        )
    return (
        f"{head}.  Absolute difference {apart[worst]:.6g} (allowed {atol:g}), "
        f"relative {share:.6g} (allowed {rtol:g})"
    )


def _whole(found: Any, wanted: Any) -> Any:
    return np.abs(found.astype(np.float64) - wanted.astype(np.float64))


def make_tensor(
    *shape: Any, dtype: T.DType, device: Any = None, low: Any = None, high: Any = None,
    requires_grad: bool = False, **options: Any,
) -> Tensor:  # fmt: skip
    """Random values in [low, high): by default -9 to 9, of integers -9 to 9 or 0 to 9, bools."""
    strange = {name for name in options if name not in ("noncontiguous", "exclude_zero")}
    if strange or any(options.values()):
        raise TypeError(f"make_tensor() got unsupported keyword arguments {sorted(options)}")
    extents = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
    if dtype is T.bool_:
        made = randint(0, 2, extents, dtype=dtype, device=device)
    elif dtype.kind in ("int", "uint"):
        least = (-9 if dtype.is_signed else 0) if low is None else int(low)
        bound = 10 if high is None else int(high)
        made = randint(least, bound, extents, dtype=dtype, device=device)
    else:
        first, last = -9.0 if low is None else low, 9.0 if high is None else high
        made = rand(extents, dtype=dtype, device=device) * (last - first) + first
    return made.requires_grad_() if requires_grad else made

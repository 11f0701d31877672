"""Whether two results are the same: structure, shapes, dtypes, values.

Everything here works on NumPy arrays and plain Python values, so that it is
tested without PyTorch (``tests/test_conformance_runner.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# (relative, absolute), as torch.testing.assert_close has them.
TOLERANCES = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}

DISTANCE = 4.0
"""How much further from the float64 result than the reference's own float32 result is allowed."""


@dataclass(frozen=True)
class Array:
    """A tensor of either side: values, and the dtype by its name (NumPy has no bfloat16)."""

    values: np.ndarray[Any, Any]
    dtype: str


def compare(found: Any, expected: Any, exact: Any = None, path: str = "result") -> str:
    """What is wrong with ``found``; empty when nothing is.

    ``exact`` is the expected result in double precision, if known: a value that
    misses the tolerance passes when it is about as near to that as ``expected`` is.
    """
    return next(_differences(found, expected, exact, path), "")


def _differences(found: Any, expected: Any, exact: Any, path: str) -> Iterator[str]:
    if isinstance(expected, Array):
        yield from _arrays(found, expected, exact, path)
    elif isinstance(expected, Mapping):
        if isinstance(found, Mapping) and sorted(found) == sorted(expected):
            for key, item in expected.items():
                yield from _differences(found[key], item, _item(exact, key), f"{path}[{key!r}]")
        else:
            yield f"{path}: {found!r} instead of keys {sorted(expected)}"
    elif _is_sequence(expected):
        if _is_sequence(found) and len(found) == len(expected):
            for i, item in enumerate(expected):
                yield from _differences(found[i], item, _item(exact, i), f"{path}[{i}]")
        else:
            yield f"{path}: {_kind(found)} instead of {len(expected)} items"
    elif not _same_value(found, expected):
        yield f"{path}: {found!r} instead of {expected!r}"


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _same_value(found: Any, expected: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return bool(np.isclose(found, expected, *TOLERANCES["float32"], equal_nan=True))
    return type(found) is type(expected) and bool(found == expected)


def _item(tree: Any, key: Any) -> Any:
    return None if tree is None else tree[key]


def _kind(value: Any) -> str:
    if isinstance(value, Array):
        return f"{value.dtype}{list(value.values.shape)}"
    if _is_sequence(value):
        return f"{len(value)} items"
    return repr(value)[:80]


def _arrays(found: Any, expected: Array, exact: Any, path: str) -> Iterator[str]:
    if not isinstance(found, Array):
        yield f"{path}: {_kind(found)} instead of {_kind(expected)}"
    elif found.dtype != expected.dtype:
        yield f"{path}: dtype {found.dtype} instead of {expected.dtype}"
    elif found.values.shape != expected.values.shape:
        yield f"{path}: shape {list(found.values.shape)} instead of {list(expected.values.shape)}"
    else:
        yield from _values(found, expected, exact, path)


def _values(found: Array, expected: Array, exact: Any, path: str) -> Iterator[str]:
    wide = complex if expected.dtype.startswith("complex") else float
    ours, theirs = found.values, expected.values
    if expected.dtype not in TOLERANCES:
        wrong = ours != theirs
    else:
        ours, theirs = ours.astype(wide), theirs.astype(wide)
        relative, absolute = TOLERANCES[expected.dtype]
        with np.errstate(all="ignore"):
            wrong = ~np.isclose(ours, theirs, relative, absolute, equal_nan=True)
    if not wrong.any():
        return
    if isinstance(exact, Array) and _as_near(ours, theirs, exact.values, wrong):
        return
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    yield (
        f"{path}: {int(wrong.sum())} of {wrong.size} elements differ, first at {list(at)}: "
        f"{ours[at]} instead of {theirs[at]}"
    )


def _as_near(ours: Any, theirs: Any, exact: Any, wrong: Any) -> bool:
    """True when ``ours`` is about as far from ``exact`` as ``theirs`` is, at the worst place."""
    if exact.shape != ours.shape:
        return False
    with np.errstate(all="ignore"):
        error, allowed = np.abs(ours - exact), np.abs(theirs - exact)
    usual = allowed[np.isfinite(allowed)]
    return bool(usual.size and np.all(error[wrong] <= DISTANCE * usual.max()))

"""PyTorch's names for :class:`graphflow.nan_guard`: ``autograd.detect_anomaly`` and its switch."""

from __future__ import annotations

from graphflow.debugging.nonfinite import nan_guard
from graphflow.mode import mode


class detect_anomaly:
    """``with gf.autograd.detect_anomaly(): …`` raises where a NaN arises, forwards or backwards.

    It is ``gf.nan_guard(inf=False)``, eagerly and in compiled functions, and may be inside of
    itself.  Raises :class:`NonFiniteError`, which names the operation and the line.  With
    ``check_nan=False`` nothing is looked for; operations know their lines without it.
    """

    def __init__(self, check_nan: bool = True) -> None:
        self._wanted = check_nan
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(is_anomaly_enabled())
        _switch(self._wanted)

    def __exit__(self, *exc: object) -> None:
        _switch(self._before.pop())


class set_detect_anomaly(detect_anomaly):
    """Switch that on or off: at once, until the end of the ``with`` block if it is one."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        super().__init__(mode and check_nan)
        self._first: bool | None = is_anomaly_enabled()
        _switch(self._wanted)

    def __enter__(self) -> None:
        before = is_anomaly_enabled() if self._first is None else self._first
        self._before.append(before)
        self._first = None
        _switch(self._wanted)


class _Guard(nan_guard):
    """The one that these switch; a guard that the user entered stays as it is."""


def is_anomaly_enabled() -> bool:
    """Whether this thread is looking for NaN by one of these."""
    return isinstance(mode.guard, _Guard)


def set_anomaly_enabled(mode: bool, check_nan: bool = True) -> None:
    """Switch it on or off until it is switched again."""
    _switch(mode and check_nan)


def _switch(on: bool) -> None:
    if on and mode.guard is None:
        _Guard(inf=False).__enter__()
    elif not on and isinstance(mode.guard, _Guard):
        mode.guard.__exit__()

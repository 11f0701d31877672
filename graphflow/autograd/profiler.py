"""Profiles, by the address that older scripts import them from."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from graphflow.profiler import profile as _profile
from graphflow.profiler import record_function

__all__ = ["profile", "record_function"]


def profile(enabled: bool = True, **flags: Any) -> AbstractContextManager[Any]:
    """``graphflow.profiler.profile()``, or nothing unless ``enabled``.

    The flags that ask for devices, shapes or memory change nothing: what runs is measured.
    """
    return _profile() if enabled else nullcontext()

"""The eight environment flags, typed, and scoped overrides for them.

``flags.DEBUG.value`` reads a flag.  The environment is read once, when this
module is imported; :func:`override` changes a flag for a ``with`` block, and
:func:`load` reads another environment.  A name that starts with ``GRAPHFLOW_``
and is no flag is an error, because a misspelt flag would silently do nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from graphflow.errors import GraphFlowError

T = TypeVar("T")
PREFIX = "GRAPHFLOW_"


class Flag(Generic[T]):
    """One flag: its name, its value now, its default, and what it does."""

    __slots__ = ("default", "help", "name", "read", "value")

    def __init__(self, name: str, default: T, read: Callable[[str], T], help: str) -> None:
        self.name, self.default, self.read, self.help = PREFIX + name, default, read, help
        self.value = default

    def parse(self, text: str) -> T:
        """The value that ``text`` spells; the error names the flag and what it takes."""
        try:
            return self.read(text.strip())
        except ValueError as error:
            raise GraphFlowError(f"{self.name}={text!r}: {error} ({self.help})") from None

    def __repr__(self) -> str:
        return f"{self.name}={self.value!r}"


def _bounded(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(text)

    return read


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("expected 0 or 1")


def _bytes(text: str) -> int:
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    digits, unit = (text[:-1], units[text[-1].lower()]) if text[-1:].lower() in units else (text, 1)
    if not digits.isascii() or not digits.isdigit():
        raise ValueError("expected a number of bytes, such as 500000000 or 2G")
    return int(digits) * unit


def _device(text: str) -> str:
    kind, _, index = text.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()) or text.endswith(":"):
        raise ValueError("expected cpu, cuda or cuda:<number>")
    return text


def _threads(text: str) -> int | None:
    return _bounded(1, 4096)(text) if text else None


def _text(text: str) -> str | None:
    return text or None


DEBUG: Flag[int] = Flag(
    "DEBUG",
    0,
    _bounded(0, 5),
    "1 compile summary, 2 kernel timings, 3 IR after each pass, 4 generated source, "
    "5 every rule that fired",
)
DUMP: Flag[str | None] = Flag(
    "DUMP", None, _text, "folder that every stage, kernel and plan is written to"
)
CACHE_DIR: Flag[str | None] = Flag("CACHE_DIR", None, _text, "folder of the kernel cache")
CACHE_LIMIT: Flag[int] = Flag(
    "CACHE_LIMIT", 1 << 30, _bytes, "bytes the kernel cache may take; least recently used goes"
)
NUM_THREADS: Flag[int | None] = Flag(
    "NUM_THREADS", None, _threads, "threads a program may use; all allowed cores if unset"
)
CPU_FEATURES: Flag[str | None] = Flag(
    "CPU_FEATURES",
    None,
    _text,
    "CPU features to generate code for, in place of the detected ones; or TRIPLE:CPU, a machine "
    "that kernels are compiled for but not run on",
)
DISABLE_JIT: Flag[bool] = Flag(
    "DISABLE_JIT", False, _boolean, "run kernels as plain Python, for a debugger"
)
DEVICE: Flag[str] = Flag("DEVICE", "cpu", _device, "device that programs run on by default")

FLAGS: tuple[Flag[Any], ...] = (
    DEBUG, DUMP, CACHE_DIR, CACHE_LIMIT, NUM_THREADS, CPU_FEATURES, DISABLE_JIT, DEVICE,
)  # fmt: skip
_BY_NAME = {flag.name: flag for flag in FLAGS}


def load(environment: Mapping[str, str]) -> None:
    """Set every flag from ``environment`` (its default where it is not named)."""
    values: dict[Flag[Any], Any] = {flag: flag.default for flag in FLAGS}
    for name in environment:
        if name.startswith(PREFIX):
            flag = _BY_NAME.get(name)
            if flag is None:
                raise GraphFlowError(f"{name} is no flag of GraphFlow{_suggestion(name)}")
            values[flag] = flag.parse(environment[name])
    for flag, value in values.items():
        flag.value = value


@contextmanager
def override(**values: Any) -> Iterator[None]:
    """Set flags by lower-case name for a block: ``with override(debug=3): ...``.

    Values are typed (``debug=3``) or text as in the environment (``debug="3"``).
    The change is seen by all threads; blocks nest.
    """
    chosen: dict[Flag[Any], Any] = {}
    for name, value in values.items():
        flag = _BY_NAME.get(PREFIX + name.upper())
        if flag is None:
            raise GraphFlowError(f"{name} is no flag of GraphFlow{_suggestion(PREFIX + name)}")
        chosen[flag] = flag.default if value is None else flag.parse(_spelled(value))
    before = {flag: flag.value for flag in chosen}
    try:
        for flag, value in chosen.items():
            flag.value = value
        yield
    finally:
        for flag, value in before.items():
            flag.value = value


def wants_report() -> bool:
    """Whether every program is to be told about, in words or files."""
    return DEBUG.value > 0 or DUMP.value is not None


def _spelled(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _suggestion(name: str) -> str:
    import difflib

    known = [flag.removeprefix(PREFIX) for flag in _BY_NAME]
    close = difflib.get_close_matches(name.upper().removeprefix(PREFIX), known, n=1)
    if close:
        return f"; did you mean {PREFIX}{close[0]}?"
    return f"; the flags are {', '.join(sorted(_BY_NAME))}"


load(os.environ)

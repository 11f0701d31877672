"""What came of an entry in one mode, and running one sample so that nothing hangs."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MODES = ("eager", "compiled", "grad", "compiled-grad", "in-place", "errors")
SECONDS = 60
"""How long one sample may take, compiling its kernels included."""


class Missing(AttributeError):
    """GraphFlow has no such name."""


@dataclass
class Outcome:
    """Samples, those that passed, those that count apart, host calls, what went wrong."""

    total: int = 0
    passed: int = 0
    apart: int = 0
    seconds: float = 0.0
    host: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """``pass``, ``apart`` (unknown sizes), ``none`` (nothing to check) or ``fail``."""
        if self.failures:
            return "fail"
        if self.passed:
            return "pass"
        return "apart" if self.apart else "none"

    def check(
        self,
        label: str,
        check: Callable[[], str],
        verbose: bool = False,
        seconds: int = SECONDS,
    ) -> None:
        """Run one sample; ``check`` says what is wrong, or nothing."""
        problem = guarded(check, verbose, seconds)
        self.total += 1
        if problem:
            self.failures.append(f"{label}: {problem}")
        else:
            self.passed += 1


class OutOfTime(Exception):
    """A sample took too long."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise :class:`OutOfTime` in the block when it takes longer."""

    def stop(*_: Any) -> None:
        raise OutOfTime(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def guarded(check: Callable[[], str], verbose: bool = False, seconds: int = SECONDS) -> str:
    """What ``check`` says, or the exception it ends with."""
    try:
        with time_limit(seconds):
            return check()
    except Missing as error:
        return f"missing {error}"
    except Exception as error:
        where = traceback.format_exc() if verbose else ""
        return f"{type(error).__name__}: {error}\n{where}".strip()

"""Several threads at once: what each returns, and the error of one that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_threads(count: int, work: Callable[[int], T], seconds: float = 300) -> list[T]:
    """What ``work(0)`` to ``work(count - 1)`` return, each called by a thread of its own.

    The first error of any is raised here; so is one after ``seconds`` without an end.
    """
    found: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            found[number] = work(number)
        except BaseException as error:  # pytest's own failures are no Exceptions
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    if errors:
        raise errors[0]
    late = [number for number, thread in enumerate(threads) if thread.is_alive()]
    assert not late, f"threads {late} have not come to an end"
    return [found[number] for number in range(count)]

"""What a forked child must make anew: locks that somebody held, threads that did not come along.

Only the thread that called ``fork`` lives on in the child.  A lock held by
another thread at that moment would stay locked for ever, and the worker
threads of the pool are gone.  Objects register here and are told in the child.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something with state that does not survive a fork."""

    def after_fork(self) -> None:
        """Runs in the child, before any other code of it."""


_registered: weakref.WeakSet[Forked] = weakref.WeakSet()


def renew_after_fork(holder: Forked) -> None:
    """Call ``holder.after_fork()`` in every child forked while ``holder`` lives."""
    _registered.add(holder)


def _in_child() -> None:
    for holder in list(_registered):
        holder.after_fork()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_in_child)

"""The programs that live, whether a profile is under way, and what a module is."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphflow.program import Program

programs: weakref.WeakSet[Program] = weakref.WeakSet()
module_types: list[type] = []
"""The class whose calls are work of a module; ``nn`` enters its own."""
active: list[object] = []
"""The recording under way, if any."""


def opened(program: Program) -> None:
    """A program is ready to run (for one size): time it too if a profile is under way."""
    programs.add(program)
    if active:
        program.loaded.profile()

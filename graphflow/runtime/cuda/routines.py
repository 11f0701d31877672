"""Operations that a library computes as a whole: which of a program's, and why not others.

What a library does is behind a few calls, so that tests can put one of NumPy in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Protocol

from graphflow.codegen.cuda.convolution import Convolution
from graphflow.codegen.library import Routine
from graphflow.codegen.routines import routine_of
from graphflow.codegen.schedule import LibraryCall, Schedule, plain_steps
from graphflow.errors import GraphFlowError
from graphflow.ir.node import Node
from graphflow.runtime.cuda.driver import missing
from graphflow.runtime.cuda.library import Launch, not_installed


class Library(Protocol):
    """Something that computes whole operations on one device."""

    @property
    def name(self) -> str:
        """The library and its version."""

    def refusal(self, routine: Routine) -> str:
        """Why the library does not compute this; empty if it does."""

    def prepared(self, routine: Routine) -> Launch:
        """What starts it.  Chosen once for each routine; lives as long as what is returned.

        Raises :class:`GraphFlowError` if the library has no way to compute it.
        """


@cache
def library(device: int) -> Library | str:
    """The library of a device, or why there is none."""
    why = missing() or not_installed(Convolution)  # by the same binding
    if why:
        return why
    from graphflow.runtime.cuda.attention import Attention

    try:
        return Attention(device)
    except Exception as error:  # a binding fails in many ways, all of which mean: no library
        return f"cuDNN does not start: {' '.join(str(error).split()) or type(error).__name__}"


class Chosen:
    """Which operations of a graph the library of a device computes as a whole.

    ``off`` is why none may, if so; sizes of symbolic dimensions are those of an ``example``.
    What it does not compute is done in parts, unless there is ``whole``, the switch that says so.
    """

    def __init__(
        self, device: int, deterministic: bool, off: str, whole: str, example: Mapping[str, int]
    ) -> None:
        self._device, self._deterministic = device, deterministic
        self._off, self._whole, self._example = off, whole, example
        self._why: dict[Node, str] = {}

    def stays(self, node: Node) -> bool:
        """Whether ``node``, which has a routine, is the library's.

        Raises :class:`GraphFlowError` if it is not, but must be.
        """
        if node not in self._why:
            self._why[node] = self._off or self._refusal(node)
        why = self._why[node]
        if why and self._whole:
            raise GraphFlowError(f"{node.op.name}: {why}; {self._whole} rules out its parts")
        return not why

    def _refusal(self, node: Node) -> str:
        found = library(self._device)
        if isinstance(found, str):
            return found
        return found.refusal(routine_of(node, self._deterministic, self._example))

    def __str__(self) -> str:
        """Who computes them, a line for each kind of routine; empty if there are none."""
        lines: dict[str, Counter[tuple[str, str]]] = {}
        for node, why in self._why.items():
            lines.setdefault(node.op.routine, Counter())[node.op.name, why] += 1
        return "\n".join(f"{kind}: {'; '.join(self._said(found))}" for kind, found in lines.items())

    def _said(self, found: Counter[tuple[str, str]]) -> list[str]:
        there = library(self._device)
        name = there if isinstance(there, str) else there.name
        return [
            f"{count} {op} by {name}" if not why else f"{count} {op} in parts: {why}"
            for (op, why), count in found.items()
        ]


class Routines:
    """What starts the routines of a program; raises :class:`GraphFlowError` if something cannot."""

    def __init__(self, schedule: Schedule, device: int) -> None:
        calls = [c for c in plain_steps(schedule.steps) if isinstance(c, LibraryCall)]
        self._launches: dict[int, Launch] = {}
        if not calls:
            return
        found = library(device)
        if isinstance(found, str):
            raise GraphFlowError(found)
        self._launches = {id(call): found.prepared(call.routine) for call in calls}

    def launch(self, call: LibraryCall) -> Launch:
        """What starts a call of the schedule."""
        return self._launches[id(call)]

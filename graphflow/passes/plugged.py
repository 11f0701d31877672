"""A pass that a user plugged in, checked where the compiler's own are trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow.errors import GraphError
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.passes.base import Pass
from graphflow.passes.channels_last import ChannelsLast
from graphflow.passes.decompose import Decompose
from graphflow.passes.pipeline import LASTING, PIPELINE, PORTABLE, Step
from graphflow.records import replace


class Plugged(Pass):
    """``inner.run``, followed by the verifier and a look at the graph's ends.

    ``inner`` is any object with ``run(graph)``; its ``name`` is shown in ``stages()``.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.name = str(getattr(inner, "name", type(inner).__name__))  # type: ignore[misc]

    def run(self, graph: Graph) -> Graph:
        """The graph that the pass made; :class:`GraphError` says what is wrong with it."""
        made = self.inner.run(graph)
        if not isinstance(made, Graph):
            raise GraphError(
                f"pass {self.name!r} returned {type(made).__name__}, not a Graph "
                "(return the graph itself where there is nothing to do)"
            )
        if made is graph:
            return graph
        try:
            made.verify("traced")
        except GraphError as error:
            raise GraphError(
                f"pass {self.name!r} made a graph that is not well formed:\n{error}"
            ) from None
        for part in ("inputs", "state", "outputs"):
            before = [str(node.type) for node in getattr(graph, part)]
            after = [str(node.type) for node in getattr(made, part)]
            changed = before != after
            if part != "outputs" and not changed:
                changed = getattr(graph, part) != getattr(made, part)
            if changed:
                raise GraphError(
                    f"pass {self.name!r} changed the {part} of the graph, from "
                    f"({', '.join(before)}) to ({', '.join(after)}); "
                    "a program is called and bound by them, so a pass must keep them"
                )
        return made

    def __str__(self) -> str:
        return self.name


def pipeline_steps(
    passes: Sequence[Pass],
    portable: bool = False,
    keep: bool = False,
    stays: Callable[[Node], bool] | None = None,
    hidden: frozenset[int] = frozenset(),
) -> tuple[Step, ...]:
    """The pipeline with the user's own passes in front, each one checked.

    ``stays``: see :class:`~graphflow.passes.decompose.Decompose`; ``hidden``: see
    :class:`~graphflow.passes.channels_last.ChannelsLast`.
    """
    steps = PORTABLE if portable else LASTING if keep else PIPELINE
    told = {Decompose(): Decompose(stays=stays), ChannelsLast(): ChannelsLast(hidden)}
    steps = tuple(replace(s, passes=tuple(told.get(p, p) for p in s.passes)) for s in steps)
    if not passes:
        return steps
    return (Step(tuple(map(Plugged, passes)), "passes the caller plugged in"), *steps)

"""Programs made here and now, for so many threads, and steps of training to make them of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
from graphflow import nn
from graphflow.capture import capture
from graphflow.program import Program


class _Nothing:
    """A pass of the user's, so that no plan is looked for."""

    name = "nothing"

    def run(self, graph: Any) -> Any:
        """The graph."""
        return graph


def program_of(function: Callable[..., Any], *args: Any, threads: int = 2) -> Program:
    """The program of a function for these arguments and so many threads."""
    held = gf.get_num_threads()
    gf.set_num_threads(threads)
    try:
        return Program.from_capture(capture(function, args, {}), passes=(_Nothing(),))
    finally:
        gf.set_num_threads(held)


def training(model: nn.Module, optimizer: Any) -> Callable[[Any], Any]:
    """A step on the mean square of what a model, or a recurrent layer, gives."""

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        out = model(x)
        loss = (out[0] if isinstance(out, tuple) else out).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return step

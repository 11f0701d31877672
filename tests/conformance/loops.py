"""Training loops as people write them, beside PyTorch's: the same losses, in double precision.

``compiled`` compiles the model and leaves the rest of the loop as it is; ``eager`` compiles
nothing.  In both, whatever eager code runs as a program (optimisers' steps, losses, clipping) is
one from its first call on.  :mod:`tests.conformance.loop_styles` has the loops.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

import graphflow as gf
from graphflow.backends import cpu
from tests.conformance import convert
from tests.conformance.loop_styles import STYLES, Side
from tests.conformance.outcome import Outcome

NEAR = 1e-7
"""How far what a loop reports may be apart, of the largest that it reports."""


def entries() -> list[str]:
    """``loops.<name>``."""
    return [f"loops.{name}" for name in STYLES]


def run(key: str, mode: str, verbose: bool = False) -> Outcome:
    """A loop on both sides, with an eager or a compiled model."""
    outcome, name = Outcome(), key.removeprefix("loops.")
    if mode in ("eager", "compiled"):
        outcome.check(name, lambda: _compared(name, mode == "compiled"), verbose)
    return outcome


def _compared(name: str, compiled: bool) -> str:
    style = STYLES[name]
    torch.manual_seed(0)
    theirs = Side(torch, style.model(torch), lambda model: model)
    theirs.model.double()
    ours = Side(gf, style.model(gf), gf.compile if compiled else lambda model: model)
    ours.model.double()
    state = {k: convert.to_graphflow(v) for k, v in theirs.model.state_dict().items()}
    ours.model.load_state_dict(state)
    want = np.array(style.loop(theirs))
    with _programs_at_once():
        found = np.array(style.loop(ours))
    if found.shape != want.shape:
        return f"reports {found.size} numbers instead of {want.size}"
    apart = float(np.abs(found - want).max() / np.abs(want).max())
    return "" if apart <= NEAR else f"what it reports is {apart:.2g} apart"


@contextmanager
def _programs_at_once() -> Iterator[None]:
    """Compile for eager code at first calls, whatever this process does otherwise."""
    before, cpu.eager_kernels = cpu.eager_kernels, True
    gf.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        gf.use_deterministic_algorithms(False)
        cpu.eager_kernels = before

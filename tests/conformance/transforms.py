"""Transforms of functions (``torch.func``), beside PyTorch's, in double precision.

:mod:`tests.conformance.transform_cases` has them, written once for both libraries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import graphflow as gf
from tests.conformance import convert
from tests.conformance.outcome import Outcome
from tests.conformance.transform_cases import CASES, MODELS, Side

NEAR = 1e-9


def entries() -> list[str]:
    """``transforms.<name>``."""
    return [f"transforms.{name}" for name in CASES]


def run(key: str, mode: str, verbose: bool = False) -> Outcome:
    """A case on both sides: eager, or the whole of it compiled."""
    outcome, name = Outcome(), key.removeprefix("transforms.")
    if mode in ("eager", "compiled"):
        outcome.check(name, lambda: _compared(name, mode == "compiled"), verbose)
    return outcome


def _sides() -> tuple[Side, Side]:
    torch.manual_seed(0)
    theirs = {name: [make(torch).double() for _ in range(3)] for name, make in MODELS.items()}
    ours = {name: [make(gf).double() for _ in range(3)] for name, make in MODELS.items()}
    for name, models in theirs.items():
        for their, own in zip(models, ours[name], strict=True):
            state = {k: convert.to_graphflow(v) for k, v in their.state_dict().items()}
            own.load_state_dict(state)
    return Side(torch, torch.func, theirs), Side(gf, gf.func, ours)


def _compared(name: str, compiled: bool) -> str:
    function, *arrays = CASES[name]
    theirs, ours = _sides()
    want = _leaves(function(theirs, *(torch.tensor(x) for x in arrays)))

    def own(*operands: Any) -> Any:
        return function(ours, *operands)

    found = _leaves((gf.compile(own) if compiled else own)(*(gf.tensor(x) for x in arrays)))
    if [x.shape for x in found] != [x.shape for x in want]:
        return f"shapes {[x.shape for x in found]} instead of {[x.shape for x in want]}"
    apart = max(
        float(np.abs(a - b).max(initial=0)) / (1 + float(np.abs(b).max(initial=0)))
        for a, b in zip(found, want, strict=True)
    )
    return "" if apart <= NEAR else f"{apart:.2g} apart"


def _leaves(tree: Any) -> list[Any]:
    return [x.detach().numpy() for x in torch.utils._pytree.tree_leaves(tree)]

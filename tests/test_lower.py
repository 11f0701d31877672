"""Lowered kernels against the interpreter: random bodies, odd layouts, thread counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lowering import evaluate
from lowering_bodies import fold_body, map_body

from graphflow.ir.graph import Graph

Array = np.ndarray[Any, Any]


def check(body: Graph, arrays: list[Array], threads: int = 1, compiled: bool = False) -> None:
    """Every result equals the interpreter's within rounding."""
    with np.errstate(all="ignore"):
        want = body.run(*arrays)
    got, calls, memory = evaluate(body, arrays, threads, compiled)
    sources = "\n".join(call.kernel.source for call in calls)
    for index, (mine, right) in enumerate(zip(got, want)):
        assert mine.shape == right.shape and mine.dtype == right.dtype
        message = f"result {index} of\n{body}\n{sources}"
        np.testing.assert_allclose(mine, right, rtol=2e-5, atol=2e-5, err_msg=message)
    assert memory.error[0] == 0


@pytest.mark.parametrize("block", range(10))
def test_random_maps_agree_with_the_interpreter(block: int) -> None:
    for seed in range(block * 30, block * 30 + 30):
        print("seed", seed)
        check(*map_body(seed))


@pytest.mark.parametrize("block", range(10))
def test_random_folds_agree_with_the_interpreter(block: int) -> None:
    for seed in range(block * 30, block * 30 + 30):
        print("seed", seed)
        check(*fold_body(seed))

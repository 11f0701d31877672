"""Lowered kernels against the interpreter: random bodies, odd layouts, thread counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lowering import evaluate
from lowering_bodies import fold_body, map_body

from graphflow.codegen import lower_column, lower_row, lower_split
from graphflow.ir.graph import Graph

Array = np.ndarray[Any, Any]


def check(
    body: Graph,
    arrays: list[Array],
    threads: int = 1,
    compiled: bool = False,
    in_place: dict[int, int] | None = None,
) -> None:
    """Every result equals the interpreter's within rounding."""
    with np.errstate(all="ignore"):
        want = [np.array(x) for x in body.run(*arrays)]
    got, calls, memory = evaluate(body, arrays, threads, compiled, in_place)
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


def overwritten(body: Graph, seed: int) -> dict[int, int]:
    """Results that may take the place of an operand of their type, one each."""
    rng = np.random.default_rng(seed)
    pairs: dict[int, int] = {}
    for j in rng.permutation(len(body.outputs)):
        for i in rng.permutation(len(body.inputs)):
            same = body.inputs[i].type == body.outputs[j].type
            if same and i not in pairs.values() and body.outputs[j] not in body.inputs:
                pairs[int(j)] = int(i)
                break
    return pairs


@pytest.mark.parametrize("make", [map_body, fold_body])
def test_random_results_overwrite_operands(make: Any) -> None:
    count = 0
    for seed in range(120):
        print("seed", seed)
        body, arrays = make(seed, plainly=True)
        in_place = overwritten(body, seed)
        count += len(in_place)
        check(body, arrays, in_place=in_place)
    assert count > 60


@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize("plainly", [False, True])
def test_random_folds_in_blocks_and_chunks(
    block: int, plainly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paths for long reductions, taken by short ones."""
    monkeypatch.setattr(lower_row, "LONG", 2)
    monkeypatch.setattr(lower_column, "SUMMED", 2)
    monkeypatch.setattr(lower_row, "BLOCK", 2)
    monkeypatch.setattr(lower_split, "LEAST_ELEMENTS", 1 if block % 2 else 1 << 20)
    monkeypatch.setattr(lower_split, "FEW_ROWS", 1000)
    monkeypatch.setattr(lower_split, "LEAST_CHUNKED", 2)
    monkeypatch.setattr(lower_split, "CHUNK_ELEMENTS", 2)
    split = 0
    for seed in range(block * 40, block * 40 + 40):
        print("seed", seed)
        body, arrays = fold_body(seed, plainly)
        in_place = overwritten(body, seed) if plainly else None
        check(body, arrays, in_place=in_place)
        split += len(evaluate(body, arrays)[1]) > 1
    assert split > 10 or block % 2 == 0

"""Large copies by several threads are what copies one after the other are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from graphflow.runtime import shared_work
from graphflow.runtime.shared_work import copy_all, share

Pairs = list[tuple[np.ndarray, np.ndarray]]


def _usual(memory: np.ndarray) -> Pairs:
    targets = [np.zeros(size, np.float32) for size in (1, 70_000, 0, 33, 5_000)]
    return [(t, memory[i : i + t.size].astype(np.float32)) for i, t in enumerate(targets)]


def _strided(memory: np.ndarray) -> Pairs:
    wide = np.zeros((300, 200))
    table = memory[:60_000].reshape(200, 300)
    return [(wide, table.T), (np.zeros((200, 300))[::2], table[1::2]), (np.zeros(()), memory[7])]


def _chained(memory: np.ndarray) -> Pairs:
    """Each reads what the one before has written."""
    return [
        (memory[20_000:40_000], memory[:20_000]),
        (memory[60_000:80_000], memory[20_000:40_000]),
    ]


def _overlapping(memory: np.ndarray) -> Pairs:
    return [
        (memory[:50_000], memory[60_000:110_000]),
        (memory[40_000:90_000], memory[30_000:80_000]),
    ]


@pytest.mark.parametrize("make", [_usual, _strided, _chained, _overlapping])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_copies_of_all(
    make: Callable[[np.ndarray], Pairs], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_work, "_MUCH", 2_000)
    held = gf.get_num_threads()
    gf.set_num_threads(threads)
    try:
        results = []
        for copy in (copy_all, _one_by_one):
            memory = np.random.default_rng(11).normal(size=120_000)
            pairs = make(memory)
            copy(pairs)
            results.append([memory, *(target for target, _ in pairs)])
    finally:
        gf.set_num_threads(held)
    for ours, theirs in zip(*results):
        np.testing.assert_array_equal(ours, theirs)


def _one_by_one(pairs: Pairs) -> None:
    for target, source in pairs:
        np.copyto(target, source)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 1001])
def test_parts_are_all_of_it_once(count: int) -> None:
    seen = np.zeros(count, np.int64)

    def work(begin: int, end: int) -> None:
        seen[begin:end] += 1

    share(work, count, 3)
    assert (seen == 1).all()


def test_a_large_state_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work, "_MUCH", 1_000)
    one, other = (nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64)) for _ in range(2))
    state = {name: value.detach().double() for name, value in one.state_dict().items()}
    state["1.num_batches_tracked"] = gf.tensor([3])  # of one element, for a scalar
    versions = [p._version for p in other.parameters()]
    other.load_state_dict(state)
    assert all(p._version > v for p, v in zip(other.parameters(), versions))
    for name, value in other.state_dict().items():
        expected = state[name].reshape(value.shape).to(value.dtype)
        np.testing.assert_array_equal(value.numpy(), expected.numpy())


def test_tensors_of_a_model_change_places_in_order() -> None:
    model = nn.Module()
    for name in "ab":
        model.register_buffer(name, gf.full((3,), float(ord(name))))
    model.load_state_dict({"a": model.b, "b": model.a})
    assert model.a.tolist() == model.b.tolist() == [98.0] * 3  # as copies one after the other

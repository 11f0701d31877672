"""Page-locked memory: what is in it, batches of a loader, and copies that are not waited for.

Run by ``tests/test_cuda.py`` in the simulator, which has no such memory but the same calls.
"""

from __future__ import annotations

import gc
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.codegen.cuda import toolchain as chain
from graphflow.errors import GraphFlowError
from graphflow.nn.utils.rnn import pack_sequence
from graphflow.runtime.cuda import memory, pinned
from graphflow.utils.data import DataLoader, TensorDataset


def test_a_tensor_knows_whether_it_is_page_locked() -> None:
    x = gf.arange(12.0).reshape(3, 4)
    held = x.pin_memory()
    assert held.is_pinned() and not x.is_pinned() and held.tolist() == x.tolist()
    assert held[1:, ::2].is_pinned() and held.pin_memory() is held and held.is_cpu
    assert not held.clone().is_pinned() and not held.cuda().is_pinned()
    assert x.t()[1].pin_memory().tolist() == [1, 5, 9]
    assert (
        gf.ones(2, pin_memory=True).is_pinned() and gf.tensor([1, 2], pin_memory=True).is_pinned()
    )
    assert gf.zeros(0).pin_memory().shape == (0,) and gf.tensor(2.0).pin_memory().item() == 2
    held[0, 0] = 7
    assert x[0, 0] == 0, "it is a copy"
    with pytest.raises(GraphFlowError, match="only the CPU's"):
        x.cuda().pin_memory()
    with pytest.raises(GraphFlowError):
        gf.compile(lambda y: y.pin_memory())(x)


def test_page_locked_memory_is_forgotten_with_its_last_view() -> None:
    gc.collect()
    before = dict(pinned._ranges)
    view = gf.ones(5).pin_memory()[2:]
    assert len(pinned._ranges) == len(before) + 1 and view.is_pinned()
    del view
    assert pinned._ranges == before


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_a_loader(workers: int) -> None:
    data = TensorDataset(gf.arange(20.0).reshape(10, 2), gf.arange(10))
    loader = DataLoader(data, 5, pin_memory=True, num_workers=workers)
    plain = [tuple(t.tolist() for t in batch) for batch in DataLoader(data, 5)]
    found = list(loader)
    assert all(t.is_pinned() for batch in found for t in batch)
    assert [tuple(t.tolist() for t in batch) for batch in found] == plain


def test_containers_keep_their_kind() -> None:
    packed = pack_sequence([gf.ones(3), gf.ones(2)])
    batch = {"a": gf.ones(2), "b": Pair(gf.ones(1), "text"), "c": [gf.ones(1), 3], "d": packed}
    (found,) = DataLoader([batch], batch_size=None, pin_memory=True, collate_fn=lambda b: b)
    assert found["a"].is_pinned() and type(found["b"]) is Pair and found["b"].first.is_pinned()
    assert found["b"].second == "text" and found["c"][1] == 3 and found["c"][0].is_pinned()
    assert found["d"].is_pinned() and type(found["d"]) is type(packed)


def test_copies_that_are_not_waited_for_carry_the_same_values() -> None:
    x = gf.arange(6.0).reshape(2, 3).pin_memory()
    model = gf.nn.Linear(3, 2).to("cuda", non_blocking=True)
    for y in (
        x.to("cuda", non_blocking=True), x.cuda(non_blocking=True), x.to("cuda", True),
        x.t().to("cuda", non_blocking=True).t(), gf.empty(2, 3).cuda().copy_(x, non_blocking=True),
    ):  # fmt: skip
        assert y.is_cuda and y.tolist() == x.tolist() and model(y).is_cuda
    assert x.requires_grad_().cuda(non_blocking=True).requires_grad


def test_memory_lives_until_the_copy_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a driver is asked for, by a stand-in for it."""
    said: list[str] = []
    done = {"now": False}

    class Event:
        def record(self) -> None:
            said.append("event")

        def query(self) -> bool:
            return done["now"]

    class Target:
        def copy_to_device(self, values: Any, stream: Any = 0) -> None:
            said.append(f"{values.nbytes} on {stream}")

    cuda = SimpleNamespace(default_stream=lambda: "ours", event=lambda timing: Event())
    monkeypatch.setattr(pinned, "is_simulated", lambda: False)
    held = np.ones(4)
    monkeypatch.setattr(pinned, "toolchain", lambda: chain.Toolchain("x", "1", cuda))
    pinned.copy_without_waiting(Target(), held)
    assert said == ["32 on ours", "event"] and pinned._under_way[-1][1] is held
    done["now"] = True
    pinned.copy_without_waiting(Target(), held)
    assert not pinned._under_way


def test_ordinary_memory_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(memory, "copy_without_waiting", lambda t, v: asked.append(v.nbytes))
    gf.ones(2).to("cuda", non_blocking=True)
    gf.ones(2).pin_memory().to("cuda")
    assert asked == []
    gf.ones(2).pin_memory().to("cuda", non_blocking=True)
    assert asked == [8]

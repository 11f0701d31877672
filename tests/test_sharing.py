"""Memory that processes share: forked ones, and those that tensors are sent to."""

from __future__ import annotations

import gc
import os
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest

import graphflow as gf
import graphflow.multiprocessing as mp
from graphflow.errors import GraphFlowError, TraceError


def _forked(work: Any, *arguments: Any) -> None:
    process = mp.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def _trained(model: Any, bias: Any) -> None:
    optimizer = gf.optim.SGD(model.parameters(), lr=1.0)
    model(gf.ones(2)).sum().backward()
    optimizer.step()
    bias.mul_(2)


def _received(model: Any, part: Any, queue: Any) -> None:
    assert model.weight.is_shared() and isinstance(model.weight, gf.nn.Parameter)
    assert model.weight.requires_grad and not queue.get().is_shared()
    part.add_(1)
    with gf.no_grad():
        model.weight.fill_(7)
    queue.get().fill_(9)


def test_forked_processes_train_one_model() -> None:
    model = gf.nn.Linear(2, 3)
    gf.nn.init.constant_(model.weight, 0.5)  # differences of such numbers are exact
    before, bias = model.weight.detach().clone(), gf.arange(4.0).share_memory_()
    assert not model.weight.is_shared()
    assert model.share_memory() is model and model.weight.is_shared() and bias.is_shared()
    assert model.weight.requires_grad and gf.equal(model.weight, before)
    _forked(_trained, model, bias)
    assert gf.equal(model.weight, before - 1) and bias.tolist() == [0, 2, 4, 6]
    step = gf.compile(lambda x: model(x).sum())
    assert step(gf.ones(2)).item() == pytest.approx(model(gf.ones(2)).sum().item(), rel=1e-6)
    _forked(_trained, model, bias)
    assert step(gf.ones(2)).item() == pytest.approx(model(gf.ones(2)).sum().item(), rel=1e-6)
    assert gf.equal(model.weight, before - 2)


def test_tensors_are_sent_as_the_memory_that_they_are() -> None:
    context = mp.get_context("spawn")
    model, whole = gf.nn.Linear(2, 3).share_memory(), gf.zeros(3, 4).share_memory_()
    queue, sent = context.Queue(), gf.zeros(2).share_memory_()
    queue.put(gf.ones(2))
    queue.put(sent)
    process = context.Process(target=_received, args=(model, whole.t()[1:3], queue))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert whole.tolist() == [[0, 1, 1, 0]] * 3
    assert model.weight.eq(7).all() and sent.tolist() == [9, 9]


def test_memory_is_given_back_and_copies_are_ones_own() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    shared = [gf.ones(1000).share_memory_() for _ in range(5)]
    shared[0].add_(1)
    assert shared[0].share_memory_() is shared[0]
    for copy in (shared[0].clone(), pickle.loads(pickle.dumps(shared[0]))):
        assert not copy.is_shared() and copy.sum().item() == 2000
    assert gf.zeros(0, 3).share_memory_().is_shared()
    if before:
        assert len(os.listdir("/proc/self/fd")) >= before + 5
        shared.clear()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before


def test_what_cannot_be_shared() -> None:
    with pytest.raises(TraceError, match="share_memory_"):
        gf.compile(lambda x: x.share_memory_())(gf.ones(2))
    array = np.ones(3, np.float32)
    own = gf.from_numpy(array).share_memory_()
    own.add_(1)
    assert array.tolist() == [1, 1, 1]
    made = (gf.ones(2, requires_grad=True) * 2).share_memory_()
    with pytest.raises(GraphFlowError, match="has a history"):
        ForkingPickler.dumps(made)

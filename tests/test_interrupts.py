"""Ctrl-C at every moment at which Python looks for signals: nothing is broken afterwards.

The interpreter runs a signal's handler when a function is entered and when one written in C has
returned.  A profiler is called at just these moments, so it interrupts work at each in turn.
"""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest
from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import eager_kernels, nn, optim
from graphflow.codegen.compile import compile_kernels
from graphflow.codegen.schedule import KernelSource
from graphflow.collection import without_collection
from graphflow.mode import mode, structure
from graphflow.runtime import shared_work

# What is interrupted in a finaliser is only reported.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def interrupted(work: Callable[[], Any], least: int = 1, most: int = 1) -> Iterator[str]:
    """Do ``work`` again and again, each time interrupted a little later; yields where.

    From one time to the next there are ``least`` to ``most`` moments.  On the way out of a block
    of the user's, into ``__exit__``, no Python code can help itself: that is left out.
    """
    chosen, draw = 1, random.Random(0)
    while True:
        where, count = "", 0

        def look(frame: FrameType, event: str, _: Any, chosen: int = chosen) -> None:
            nonlocal where, count
            if where or event not in ("call", "c_return") or "weakref" in frame.f_code.co_filename:
                return
            count += 1
            if count >= chosen and (event, frame.f_code.co_name) != ("call", "__exit__"):
                where = f"{frame.f_code.co_filename}:{frame.f_lineno} {event}"
                raise KeyboardInterrupt

        try:
            sys.setprofile(look)
            work()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        if not where:
            assert chosen > 1
            return
        yield where
        chosen += draw.randint(least, most)


def in_time(work: Callable[[], Any], times: int) -> Iterator[str]:
    """Do ``work`` and interrupt it by a timer, which finds native code where no profiler looks."""
    draw = random.Random(0)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(times):
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-5, 2e-4))
                work()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
            yield "some time"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_modes(where: str) -> None:
    """They are the usual ones, also for who does not look but at the count of unusual threads."""
    assert mode.grad and mode.tracer is None and mode.guard is None, where
    assert mode.autocast is None and mode.part is None and mode.packing is None, where
    mode.note()
    assert threading.get_ident() not in structure.unusual, where


def test_modes_are_put_back() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    opt = optim.SGD(model.parameters(), lr=0.1)
    x = gf.randn(2, 3)

    @gf.no_grad()
    def plain() -> gf.Tensor:
        return model(x)

    def work() -> None:
        opt.zero_grad()
        model(x).square().sum().backward()
        opt.step()
        plain()
        gf.vmap(lambda row: row.sin().sum())(x)
        with gf.autocast("cpu"), gf.no_grad(), gf.enable_grad():
            F.linear(x, model[0].weight)

    work()
    for where in interrupted(work, 1, 3):
        check_modes(where)


@pytest.mark.parametrize("how", ["quick", "slow", "eager"])
def test_an_interrupted_step_is_known_to_have_written(how: str) -> None:
    """What a program keeps of weights alone used to be that of the weights before such a step."""
    weight = nn.Parameter(gf.randn(200, 200) * 0.01)
    x, opt = gf.ones(1, 200), optim.SGD([weight], lr=1.0)

    @gf.compile
    def step(x: gf.Tensor) -> None:
        opt.zero_grad()
        (x @ weight).sum().backward()
        opt.step()

    @gf.compile
    @gf.no_grad()
    def evaluate() -> gf.Tensor:
        return (weight.exp() @ weight.cos()).sum(0)

    @gf.no_grad()
    def fill() -> None:
        weight.fill_(0.25)

    step(x)
    evaluate()
    assert evaluate.latest.program.loaded.memory.kept.nbytes > 0
    steps = {"quick": lambda: step(x), "slow": lambda: step._slow_call((x,), {}), "eager": fill}
    for where in interrupted(steps[how], 1, 40) if how == "eager" else in_time(steps[how], 60):
        held = weight.detach().clone().numpy()
        want = (np.exp(held) @ np.cos(held)).sum(0)
        np.testing.assert_allclose(evaluate().numpy(), want, rtol=1e-4, err_msg=where)
        with gf.no_grad():
            weight.copy_(gf.randn(200, 200) * 0.01)
        evaluate()


class _Remembering(nn.Module):
    """Its state is an attribute that it assigns at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(gf.ones(3))
        self.state = gf.zeros(3)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        self.state = (x * self.weight + self.state).detach()
        return self.state * self.weight


def test_a_trace_gives_back_what_it_borrowed() -> None:
    model, x = _Remembering(), gf.ones(3)
    gf.compile(model)(x)  # from now on its attribute is known to be assigned

    def work() -> None:
        gf.compile(lambda x: model(x))(x)

    work()
    for where in interrupted(work, 1, 60):
        check_modes(where)
        model.weight.requires_grad_(True)
        assert type(model.__dict__.get("state")) is gf.Tensor, where
        held = model.state.clone().numpy()
        np.testing.assert_array_equal(model(x).detach().numpy(), held + 1, err_msg=where)
        model.state = gf.zeros(3)


def test_garbage_is_collected_afterwards() -> None:
    build = without_collection(lambda: [[] for _ in range(3)])
    gc.enable()
    for where in interrupted(build):
        assert gc.isenabled() and gc.get_freeze_count() == 0, where


@pytest.mark.parametrize("when", ["at work", "waiting"])
def test_no_thread_copies_on_after_an_interrupt(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work.pool, "_budget", 3)
    ended: list[int] = []

    def work(begin: int, end: int) -> None:
        if begin == 0:
            if when == "at work":
                raise KeyboardInterrupt
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            return
        time.sleep(0.2)
        ended.append(begin)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            shared_work.share(work, 30, 10)
        assert sorted(ended) == [10, 20]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_compiler_whose_start_was_interrupted_starts_at_the_next_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiler, made, start = (
        eager_kernels._Compiler(),
        threading.Semaphore(0),
        threading.Thread.start,
    )

    def interrupt(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compiler.add(made.release)
    monkeypatch.setattr(threading.Thread, "start", start)
    compiler.add(made.release)
    assert made.acquire(timeout=10) and made.acquire(timeout=10)
    compiler.stop()


def test_locks_that_an_interrupt_left_taken_do_not_stop_compilation() -> None:
    """LLVM's and Numba's are taken in Python: an interrupt can come right after that."""
    ffi.lib._lock._lock.acquire()
    global_compiler_lock._lock.acquire()
    text = "from graphflow.codegen.prelude import kernel, pointer_i64\n\n\n@kernel\n"
    text += "def set_{0}(args, tid, nth):\n    pointer_i64(args, 0)[0] = {0}\n"
    kernels = [KernelSource(f"set_{n}", text.format(n)) for n in range(3)]
    assert len(compile_kernels(kernels).objects) == 3
    for lock in (ffi.lib._lock._lock, global_compiler_lock._lock):
        assert not lock._is_owned()

"""The pool's life: made late, woken, forked, resized, stopped; no hang at the end."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from schedules import chain, floats

from graphflow import flags
from graphflow.errors import GraphFlowError
from graphflow.runtime import context, threads
from graphflow.runtime.executor import Control, Waited, thread_addresses
from graphflow.runtime.launch import LoadedProgram
from graphflow.runtime.storage import Array, address_of
from graphflow.runtime.threads import (
    ThreadPool,
    default_threads,
    get_num_threads,
    pool,
    set_num_threads,
)

N = 5000
HERE = Path(__file__).parent
PATIENCE = 300  # seconds after which a hang is a hang


@pytest.fixture(autouse=True)
def budget() -> Iterator[None]:
    before = get_num_threads()
    set_num_threads(2)
    yield
    set_num_threads(before)


def check(program: LoadedProgram, length: int, seed: int) -> None:
    """Run a chain and compare it with NumPy."""
    x = floats(seed, N)
    (out,) = program.run((x.address,))
    assert out is not None
    np.testing.assert_array_equal(out.array, chain(N, length)[1](x.array))


def test_a_thread_that_looked_in_vain_tries_again_less_and_less_often() -> None:
    control = threads._new_control(2)
    control[Control.SYSCALL] = control[Control.SLEEP] = 0  # with nothing to sleep on it gives up
    control[Control.SPINS] = most = 40
    line = control[Control.MAIL + 8 :]
    line[Waited.LOOKS], line[Waited.FEWEST_LOOKS] = most, 2
    wait, base = threads._WORKER(thread_addresses()["thread_wait"]), address_of(control)

    def longest(times: int, value: int) -> list[bool]:
        found = []
        for _ in range(times):
            found.append(line[Waited.LOOKS] == most)
            wait(base, address_of(line), value)
        return found

    vain = longest(80, 0)
    places = [place for place, patient in enumerate(vain) if patient]
    assert places == [0, 1, 3, 7, 15, 31, 63]
    assert longest(80, 1)[-1] and line[Waited.APART] == 0  # what it waits for is there
    assert longest(3, 0) == [True, True, False]


def script(text: str) -> list[str]:
    """The command that runs ``text`` with a two-thread program ready to use."""
    head = f"""
        import os, signal, sys, threading, time
        sys.path.insert(0, {str(HERE)!r})
        from graphflow.runtime import threads
        from graphflow.runtime.launch import LoadedProgram
        from schedules import chain, floats
        threads.set_num_threads(2)
        x = floats(0, {N})
        program = LoadedProgram(chain({N}, 3)[0], threads=2)
        def step():
            return program.run((x.address,))
        step()
        assert threads.pool.workers == 1
    """
    return [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(text)]


def finish(command: list[str]) -> str:
    """Run a command to its end; its output.  Fails on a hang, an error, or a complaint."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, cwd=HERE.parent
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# --- start and size ---------------------------------------------------------


def workers() -> list[str]:
    """The pool's threads by name; the one that compiles for eager code is no part of it."""
    return [t.name for t in threading.enumerate() if re.fullmatch(r"graphflow-\d+", t.name)]


def test_threads_are_made_when_first_needed() -> None:
    pool.stop()
    program = LoadedProgram(chain(N, 2)[0], threads=2)
    assert pool.workers == 0
    check(program, 2, 0)
    assert pool.workers == 1
    assert workers() == ["graphflow-1"]


def test_a_stopped_pool_starts_again() -> None:
    program = LoadedProgram(chain(N, 3)[0], threads=2)
    for seed in range(3):
        check(program, 3, seed)
        pool.stop()
        assert not workers()


def test_the_pool_grows_beyond_what_it_was_made_for() -> None:
    pool.stop()
    program = LoadedProgram(chain(N, 3)[0], threads=16)
    for count in (2, 3, 16, 2):
        set_num_threads(count)
        check(program, 3, count)
    assert pool.workers == 15


def test_many_short_steps() -> None:
    """Every step posts mail and collects it again; nothing may get lost."""
    program = LoadedProgram(chain(48, 2)[0], threads=2)
    x = floats(0, 48)
    expected = chain(48, 2)[1](x.array)
    for _ in range(20_000):
        (out,) = program.run((x.address,))
        assert out is not None and out.array[47] == expected[47]
    np.testing.assert_array_equal(out.array, expected)


def test_sleepers_are_woken() -> None:
    program = LoadedProgram(chain(N, 3)[0], threads=2)
    for seed in range(50):
        time.sleep(0.002)
        check(program, 3, seed)


def test_pools_without_futexes_sleep_and_look() -> None:
    """What other systems do: short naps instead of a futex."""
    own, made = ThreadPool(), threads._new_control

    def without(count: int) -> Array:
        block = made(count)
        block[Control.SYSCALL] = 0
        return block

    with pytest.MonkeyPatch().context() as patched:
        patched.setattr(threads, "_new_control", without)
        patched.setattr(context, "pool", own)
        program = LoadedProgram(chain(N, 3)[0], threads=2)
        for seed in range(20):
            check(program, 3, seed)
            time.sleep(0.003)
        assert own.workers == 1
        own.stop()
        assert own.workers == 0


# --- processors -------------------------------------------------------------

several_processors = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="there is no other processor to go to",
)


@several_processors
@pytest.mark.parametrize("pause", [0.0, 0.001, 0.05])
def test_threads_do_not_share_a_processor(pause: float) -> None:
    """Whoever wakes a thread would have it on its own processor, where they would take turns."""
    program = LoadedProgram(chain(N, 3)[0], threads=2)
    for seed in range(20):
        time.sleep(pause)
        check(program, 3, seed)
        control = pool._control
        assert control is not None and control[Control.GET_CPU]
        caller, worker = threads.words_at(control, Control.CPUS)[:2].tolist()
        assert caller != worker
        assert {caller, worker} <= os.sched_getaffinity(0)


@several_processors
@pytest.mark.parametrize("tid", [1, 2])
def test_a_thread_leaves_the_processors_of_those_before_it(tid: int) -> None:
    allowed = os.sched_getaffinity(0)
    first = min(allowed)
    control = threads._new_control(tid + 1)
    threads.words_at(control, Control.CPUS)[:tid] = first
    found: list[set[int]] = []

    def leave() -> None:
        apart = threads._WORKER(thread_addresses()["thread_apart"])
        apart(address_of(control), tid, 0)
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    assert found == [allowed - {first}]
    assert os.sched_getaffinity(0) == allowed  # the caller may go where it could


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="there are no affinities here")
@pytest.mark.parametrize(
    ("allowed", "kept"), [({0}, False), ({0, 1}, True), ({3, 511}, True), ({0, 512}, False)]
)
def test_threads_are_left_where_they_are_if_processors_are_few_or_too_many(
    allowed: set[int], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: allowed)
    control = threads._new_control(2)
    assert bool(control[Control.GET_CPU]) is kept
    bits = control[Control.ALLOWED : Control.LEFT]
    found = {64 * i + j for i, word in enumerate(bits.tolist()) for j in range(64) if word >> j & 1}
    assert found == (allowed if kept else set())


# --- the budget -------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -1, 5000, 2.0, "2", None, True])
def test_a_wrong_number_of_threads_is_an_error(wrong: object) -> None:
    with pytest.raises(GraphFlowError, match="from 1 to 4096"):
        set_num_threads(wrong)  # type: ignore[arg-type]
    assert get_num_threads() == 2


def test_the_flag_sets_the_first_budget() -> None:
    with flags.override(num_threads=3):
        assert ThreadPool().budget == 3
    with flags.override(num_threads=None):
        assert ThreadPool().budget == default_threads()
    assert 1 <= default_threads() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("fast", [4, 0])
def test_slow_cores_of_macos_are_left_out(fast: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer is invented here: how many cores of the fastest kind, or that there is none."""

    def sysctlbyname(name: bytes, value: Any, size: Any, new: Any, length: int) -> int:
        assert name == b"hw.perflevel0.physicalcpu"
        value._obj.value = fast
        return 0 if fast else -1

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(threads, "_quota", lambda count: count)
    fake = SimpleNamespace(sysctlbyname=sysctlbyname)
    monkeypatch.setattr(threads.ctypes, "CDLL", lambda _: fake)
    assert default_threads() == (fast or 8)


# --- fork -------------------------------------------------------------------


def in_child(work: object) -> bytes:
    """What ``work()`` returns in a forked child; fails if that hangs."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads about
        child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        try:
            os.write(writing, work())  # type: ignore[operator]
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return answer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_runs_steps_with_threads_of_its_own() -> None:
    program = LoadedProgram(chain(N, 3)[0], threads=2)
    x = floats(5, N)
    check(program, 3, 0)

    def work() -> bytes:
        assert pool.workers == 0
        (out,) = program.run((x.address,))
        assert out is not None and pool.workers == 1
        return out.array.tobytes()

    for _ in range(3):
        assert in_child(work) == chain(N, 3)[1](x.array).tobytes()
        check(program, 3, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_is_not_stuck_on_locks_of_other_threads() -> None:
    program = LoadedProgram(chain(N, 3)[0], threads=2)
    check(program, 3, 0)
    ending = threading.Event()

    def keep_busy() -> None:
        while not ending.is_set():
            check(program, 3, 1)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    x = floats(5, N)
    expected = chain(N, 3)[1](x.array).tobytes()

    def work() -> bytes:
        (out,) = program.run((x.address,))
        assert out is not None
        return out.array.tobytes()

    try:
        for _ in range(10):
            assert in_child(work) == expected
    finally:
        ending.set()
        busy.join()


# --- the end ----------------------------------------------------------------

ENDINGS = {
    "just so": "",
    "asleep": "time.sleep(0.05)",
    "sys.exit": "sys.exit(0)",
    "in a thread": "t = threading.Thread(target=step); t.start()",
    "after a stop": "threads.pool.stop()",
    "with a child": "pid = os.fork()\nif pid: os.waitpid(pid, 0)\nstep()",
    "a daemon that still calls": (
        "def forever():\n    while True: step()\n"
        "threading.Thread(target=forever, daemon=True).start(); time.sleep(0.05)"
    ),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_the_interpreter_ends_without_a_hang(ending: str) -> None:
    command = script("import warnings; warnings.simplefilter('ignore')\n" + ending)
    finish(command)


def test_ctrl_c_during_steps_interrupts_after_the_step() -> None:
    text = """
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs us may ignore it
        print("ready", flush=True)
        try:
            while True:
                step()
        except KeyboardInterrupt:
            print("interrupted")
        import numpy as np
        (out,) = step()
        np.testing.assert_array_equal(out.array, chain(%d, 3)[1](x.array))
        print("fine")
    """
    pipe = subprocess.PIPE
    command = script(text % N)
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=HERE.parent) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "interrupted\nfine\n", "")


def test_ctrl_c_at_any_moment_leaves_no_lock_held() -> None:
    """A thousand interrupts at moments of the clock's choosing; one in thirty used to find the
    program's lock taken and not yet guarded."""
    text = """
        import random
        random.seed(0)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        interrupts = 0
        while interrupts < 1000:
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-4))
                while True:
                    step()
            except KeyboardInterrupt:
                interrupts += 1
            assert not program._turns.lock.locked() and not threads.pool.lock.locked()
        import numpy as np
        (out,) = step()
        np.testing.assert_array_equal(out.array, chain(%d, 3)[1](x.array))
    """
    finish(script(text % N))

"""The thread pool: daemon threads that live inside compiled code.

A worker enters ``thread_worker`` once and never holds the interpreter lock
again: it looks at its mailbox for at most a tenth of a millisecond, then sleeps
on a futex until the next step that wants it.  Nobody is woken for a step that
runs on one thread.  Workers keep off the processor that the caller is on.  There is
one pool and one budget; a step that uses several threads holds the pool's lock.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from graphflow import flags
from graphflow.errors import GraphFlowError
from graphflow.runtime.executor import (
    MASK_WORDS,
    Control,
    Waited,
    system_address,
    tape_addresses,
    thread_addresses,
)
from graphflow.runtime.fork import renew_after_fork
from graphflow.runtime.storage import Array, address_of, aligned_empty

SPIN_NS = 100_000
"""How long a thread looks before it sleeps: a little longer than waking it would take."""
HASTY_NS = 5_000
"""How long it looks where looking longer has not helped: it may be in the way."""

_LINE = 8  # words of a cache line
_PER_THREAD = _LINE + MASK_WORDS + 2  # mail, processors it may use, where it is, its number
_CALIBRATION_SPINS = 500
_JOIN_SECONDS = 1.0
_FUTEX_WAKE = 129
_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98, "ppc64le": 221, "riscv64": 98}
_WORKER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class ThreadPool:
    """Worker threads and the control block they share; see :class:`Control`.

    ``lock`` is held by whoever runs a step on several threads.  ``epoch``
    changes when programs must ask again for the control block or the budget.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.epoch = 1
        self._budget: int | None = None
        self._control: Array | None = None
        self._workers: list[threading.Thread] = []
        renew_after_fork(self)

    @property
    def budget(self) -> int:
        """How many threads a step may use, the caller's among them."""
        if self._budget is None:
            self._budget = flags.NUM_THREADS.value or default_threads()
        return self._budget

    def set_budget(self, threads: int) -> None:
        """Let steps use ``threads`` threads from their next run on."""
        with self.lock:
            self._budget = threads
            self.epoch += 1

    @property
    def workers(self) -> int:
        """Threads that exist beside the caller's."""
        return len(self._workers)

    def attach(self, threads: int) -> tuple[int, int]:
        """Address of a control block, and how many of ``threads`` threads serve it; lock held.

        Threads are made when they are first needed; where the system refuses
        more of them, steps run on fewer.
        """
        control = self._control
        if control is None or threads > _threads_of(control):
            self._stop()
            control = self._control = _new_control(max(threads, self.budget))
            self.epoch += 1
        while len(self._workers) < threads - 1:
            number = len(self._workers) + 1
            entry = _WORKER(thread_addresses()["thread_worker"])
            worker = threading.Thread(
                target=entry,
                args=(address_of(control), number, 0),
                name=f"graphflow-{number}",
                daemon=True,
            )
            try:
                worker.start()
            except RuntimeError:
                break
            except BaseException:  # Ctrl-C: it may live or not, so nobody may count on it
                self._stop()
                _abandoned[id(control)] = control
                raise
            self._workers.append(worker)
            words_at(control, Control.NUMBERS)[number] = worker.native_id
        return address_of(control), min(threads, len(self._workers) + 1)

    def stop(self) -> None:
        """End the worker threads; the next step that needs them makes new ones."""
        with self.lock:
            self._stop()

    def _stop(self) -> None:
        control, workers = self._control, self._workers
        self._control, self._workers = None, []
        self.epoch += 1
        if control is None:
            return
        _abandoned[id(control)] = control  # its memory must not go away under a worker
        control[Control.STOP] = 1
        wake = _futex_wake(control)
        for number in range(1, len(workers) + 1):
            mail = Control.MAIL + _LINE * number
            control[mail] += 1
            wake(address_of(control) + 8 * mail)
        for worker in workers:
            worker.join(_JOIN_SECONDS)
        if not any(worker.is_alive() for worker in workers):
            del _abandoned[id(control)]

    def after_fork(self) -> None:
        """Fresh state in a forked child: the workers stayed in the parent."""
        self.lock = threading.Lock()
        self._control, self._workers = None, []
        self.epoch += 1

    def at_exit(self) -> None:
        """End the workers while the interpreter is still whole; never waits for a lock."""
        if self.lock.acquire(timeout=_JOIN_SECONDS):
            try:
                self._stop()
            finally:
                self.lock.release()


_abandoned: dict[int, Array] = {}
"""Memory of control blocks that a worker may still look at."""


def _threads_of(control: Array) -> int:
    """How many threads a control block has room for."""
    return int((control.size - Control.MAIL) // _PER_THREAD)


def words_at(control: Array, word: Control) -> Array:
    """The words from the one on whose address a control block has."""
    return control[(int(control[word]) - address_of(control)) // 8 :]


def _futex_wake(control: Array) -> Callable[[int], Any]:
    """A function that wakes whoever sleeps on the word at an address."""
    if not control[Control.SYSCALL]:
        return lambda word: None  # without futexes sleepers look for themselves
    call = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 5)(int(control[Control.SYSCALL]))
    return lambda word: call(int(control[Control.FUTEX]), word, _FUTEX_WAKE, 1, 0)


def _new_control(threads: int) -> Array:
    masks = Control.MAIL + _LINE * threads
    cpus = masks + MASK_WORDS * threads
    numbers = cpus + threads
    control = aligned_empty((Control.MAIL + _PER_THREAD * threads,), "int64")
    control[:] = 0
    addresses = thread_addresses()
    control[Control.CONTROL_WAIT] = addresses["thread_wait"]
    control[Control.CONTROL_WALK] = tape_addresses()["tape_walk"]
    most = _spins(control, addresses["thread_wait"])
    control[Control.SPINS] = most
    waited = control[Control.LEFT : masks].reshape(-1, _LINE)  # lines that threads wait for
    waited[:, Waited.LOOKS] = most
    waited[:, Waited.FEWEST_LOOKS] = max(1, most * HASTY_NS // SPIN_NS)
    control[Control.SLEEP] = system_address("usleep")
    number = _FUTEX_NUMBERS.get(platform.machine(), 0) if sys.platform == "linux" else 0
    if number and sys.byteorder == "little" and sys.maxsize > 2**32:
        control[Control.FUTEX] = number
        control[Control.SYSCALL] = system_address("syscall")
    control[Control.CONTROL_APART] = addresses["thread_apart"]
    places = {Control.MASKS: masks, Control.CPUS: cpus, Control.NUMBERS: numbers}
    for word, place in places.items():
        control[word] = address_of(control) + 8 * place
    _keep_apart(control)
    return control


def _keep_apart(control: Array) -> None:
    """Let no thread stay on the processor of another one, as far as there are enough of them."""
    if not hasattr(os, "sched_getaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    calls = system_address("sched_getcpu"), system_address("sched_setaffinity")
    if len(allowed) < 2 or max(allowed) >= 64 * MASK_WORDS or not all(calls):
        return
    bits = np.zeros(64 * MASK_WORDS, np.uint8)
    bits[list(allowed)] = 1
    words = np.packbits(bits, bitorder="little").view("<i8")
    control[Control.ALLOWED : Control.ALLOWED + MASK_WORDS] = words
    control[Control.GET_CPU], control[Control.SET_AFFINITY] = calls


def _spins(control: Array, wait: int) -> int:
    """How many looks take ``SPIN_NS`` here (a pause lasts from 10 to 140 cycles)."""
    look, base = _WORKER(wait), address_of(control)
    best = float("inf")
    for _ in range(3):
        control[Control.MAIL + Waited.LOOKS] = _CALIBRATION_SPINS
        start = time.perf_counter_ns()
        look(base, base + 8 * Control.MAIL, 0)  # with nothing to sleep on it gives up
        best = min(best, time.perf_counter_ns() - start)
    return max(1, int(SPIN_NS * _CALIBRATION_SPINS / max(best, 1.0)))


# --- the budget -------------------------------------------------------------


def default_threads() -> int:
    """One thread a core this process may use: affinity, hyper-threads and quota considered,
    on macOS only fast cores."""
    if hasattr(os, "sched_getaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        cores = {_siblings(cpu) for cpu in allowed}
        count = len(cores)
    else:
        count = _fast_cores() or os.cpu_count() or 1
    return max(1, min(count, _quota(count)))


def _fast_cores() -> int:
    """Cores of the fastest kind, as macOS counts them on ARM; 0 elsewhere.

    Threads have equal shares of most steps, so the others would be waited for.
    """
    try:
        ask: Any = ctypes.CDLL(None).sysctlbyname
    except (OSError, TypeError, AttributeError):
        return 0
    count = ctypes.c_int(0)
    size = ctypes.c_size_t(ctypes.sizeof(count))
    name = b"hw.perflevel0.physicalcpu"
    return 0 if ask(name, ctypes.byref(count), ctypes.byref(size), None, 0) else count.value


def _siblings(cpu: int) -> str:
    """A name for the core that hardware thread ``cpu`` belongs to."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _quota(count: int) -> int:
    """Whole processors that the control group grants; ``count`` if it sets no limit."""
    try:
        allowed, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return count if allowed == "max" else max(1, -(-int(allowed) // int(period)))
    except (OSError, ValueError):
        return count


pool = ThreadPool()
atexit.register(pool.at_exit)


def get_num_threads() -> int:
    """How many threads a compiled step may use."""
    return pool.budget


def set_num_threads(threads: int) -> None:
    """Let compiled steps use up to ``threads`` threads from their next call on.

    A program that was compiled for fewer keeps to those.  The start value is
    ``GRAPHFLOW_NUM_THREADS``, else the number of cores this process may use.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 4096:
        raise GraphFlowError(
            f"set_num_threads takes a whole number from 1 to 4096, not {threads!r}"
        )
    pool.set_budget(threads)

"""The executor: native code that walks a tape, and the words it shares with Python.

Six small kernels, compiled once a machine and cached like any other:

``tape_run``       what Python calls: wake the workers, walk the tape, wait for them
``tape_walk``      one thread's way through the tape
``thread_worker``  where a worker thread spends its life: wait, walk, report
``thread_apart``   a worker is kept off the processors that other threads are on
``thread_barrier`` all threads of a step meet
``thread_wait``    wait until a word changes: spin, then sleep in the kernel

They call each other by address, with the kernel signature ``(args, tid, nth)``
whatever the three words mean.  :class:`Context` and :class:`Control` say what the
words of their blocks are.
"""

from __future__ import annotations

import ctypes
import enum
import re
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeAlias

from graphflow import flags
from graphflow.codegen.schedule import MAX_LEVELS, KernelSource
from graphflow.codegen.target import chosen_target
from graphflow.runtime.cache import load
from graphflow.runtime.tape import COUNTERS, ROW, Jump, Op, Who

Entry: TypeAlias = Callable[[bytes], None]
"""``tape_run`` as Python sees it: called with packed words, the context's address first."""

# A kernel has three parameters, but this entry looks at the first alone, and
# every argument converted costs as much as a kernel: pass just that one.  (All three
# travel in registers on every platform Numba has, so the others are merely undefined.)
# Without a list of types bytes are passed as they are, which is the quickest.
_RELEASING, _HOLDING = ctypes.CFUNCTYPE(None), ctypes.PYFUNCTYPE(None)


class Context(enum.IntEnum):
    """Words of a program's context block; its slots follow at ``SLOTS_START``."""

    PC = 0  # where to go on: 0, or the instruction after a HOST
    STATUS = 1  # an Op: END, HOST or CHECK
    DETAIL = 2  # the number of the host call, or the failure's code
    ERROR = 3  # the error word that fallible kernels write
    START = 4  # PC as this run began
    THREADS = 5
    GENERATION = 6  # of the slots that seldom change
    PROFILE = 7  # address of two words for the clock, then (ns, count) a call; or 0
    CODE = 8
    SLOTS = 9
    AREA = 10  # the first thread's area
    AREA_BYTES = 11
    RELOCATIONS = 12
    WALK = 13  # entries of the kernels above, and of clock_gettime
    WAIT = 14
    BARRIER_ENTRY = 15
    CLOCK = 16
    CONTROL = 17  # the pool's control block
    SLOTS_START = 24


class Control(enum.IntEnum):
    """Words of the thread pool's control block, by cache line.

    A word that somebody waits for begins a line laid out as :class:`Waited`.
    """

    SYSCALL = 0  # libc's syscall(), 0 where there are no futexes
    FUTEX = 1  # the number of the futex system call
    SLEEP = 2  # libc's usleep(), used without futexes
    SPINS = 3  # how often to look before sleeping, at most
    CONTROL_WAIT = 4  # entry of thread_wait
    CONTROL_WALK = 5
    CONTROL_APART = 6
    GET_CPU = 7  # libc's sched_getcpu(), 0 where threads stay where the system puts them
    JOB = 8  # context of the step at hand
    STOP = 9
    SET_AFFINITY = 10  # libc's sched_setaffinity()
    CPUS = 11  # address of a word a thread: the processor that it was last seen on
    NUMBERS = 12  # address of a word a thread: its number in the system
    MASKS = 13  # address of eight words a thread: processors that it may use
    ALLOWED = 16  # eight words: a bit for every processor that the process may use
    LEFT = 24  # workers that have not finished the step
    ARRIVED = 32  # threads at the barrier
    PASSED = 40  # barriers that all threads have met at
    MAIL = 48  # eight words a thread: number of steps it was given


MASK_WORDS = 8
"""Words of a set of processors, 64 to a word: machines with more leave threads where they are."""


class Waited(enum.IntEnum):
    """A line of the control block whose first word threads wait for."""

    WORD = 0
    SLEEPERS = 1
    LOOKS = 2  # how often to look at the word before sleeping, as experience has it
    FEWEST_LOOKS = 3
    FAILURES = 4  # how often that was not enough, since looking longest
    APART = 5  # how many failures to have before looking longest again


_CONSTANTS = {
    **{
        word.name: word.value for kind in (Context, Control, Waited, Op, Jump, Who) for word in kind
    },
    "PATIENCE": 32,
    "ROW": ROW,
    "COUNTERS": COUNTERS,
    "LEVELS": MAX_LEVELS,
    "MASK_WORDS": MASK_WORDS,
    "FUTEX_WAIT": 128,  # with FUTEX_PRIVATE_FLAG
    "FUTEX_WAKE": 129,
    "FIRST_NAP_US": 50,
    "LONGEST_NAP_US": 1000,
    "CLOCK_ID": getattr(time, "CLOCK_MONOTONIC", 1),
}
"""Everything the texts below call by a name in capitals; no name means two things."""

_HEADER = """\
from graphflow.codegen.atomics import atomic_add, atomic_load, atomic_store, call_system, pause
from graphflow.codegen.prelude import (
    address_of, call_kernel, kernel, pointer_at_i64, pointer_at_u8,
)
"""

_WAIT = '''
@kernel
def thread_wait(args, word, value):
    """Return when the word at address `word` is no longer `value`."""
    line = pointer_at_i64(word)
    looks = line[LOOKS]
    left = looks
    while left > 0:
        if atomic_load(word) != value:
            if looks < args[SPINS]:
                line[LOOKS] = min(2 * looks, args[SPINS])
            else:
                line[APART] = 0
            return
        pause()
        left -= 1
    # In vain: the other side seems to wait for this very processor.  Give it up sooner from
    # now on, but try patience again: soon after it last helped, then less and less often.
    if looks >= args[SPINS]:
        line[APART] = min(max(1, 2 * line[APART]), PATIENCE)
        line[FAILURES] = 0
    line[FAILURES] += 1
    line[LOOKS] = args[SPINS] if line[FAILURES] >= line[APART] else line[FEWEST_LOOKS]
    atomic_add(word + 8, 1)
    nap = FIRST_NAP_US
    while atomic_load(word) == value:
        if args[SYSCALL] != 0:
            # The kernel compares 32 bits of the word before it lets us sleep.
            call_system(args[SYSCALL], args[FUTEX], word, FUTEX_WAIT, value & 0xFFFFFFFF, 0)
        elif args[SLEEP] != 0:
            call_system(args[SLEEP], nap, 0, 0, 0, 0)
            nap = min(2 * nap, LONGEST_NAP_US)
        else:
            break
    atomic_add(word + 8, -1)
'''

_BARRIER = '''
@kernel
def thread_barrier(args, tid, nth):
    """Return when all `nth` threads have come here."""
    base = address_of(args)
    passed = atomic_load(base + 8 * PASSED)
    if atomic_add(base + 8 * ARRIVED, 1) + 1 == nth:
        atomic_store(base + 8 * ARRIVED, 0)
        atomic_add(base + 8 * PASSED, 1)
        if atomic_load(base + 8 * PASSED + 8) > 0 and args[SYSCALL] != 0:
            call_system(args[SYSCALL], args[FUTEX], base + 8 * PASSED, FUTEX_WAKE, 0x7FFFFFFF, 0)
    else:
        call_kernel(args[CONTROL_WAIT], base, base + 8 * PASSED, passed)
'''

_APART = '''
@kernel
def thread_apart(args, tid, thread):
    """Keep worker `tid`, whose number in the system is `thread`, off processors in use."""
    # A thread that slept may be woken on the processor of who wakes it, where the two take turns
    # until the system looks at its balance again: up to 0.1 s.
    cpus = pointer_at_i64(args[CPUS])
    mask = pointer_at_i64(args[MASKS]) + MASK_WORDS * tid
    changed = False
    for word in range(MASK_WORDS):
        allowed = args[ALLOWED + word]
        for other in range(tid):
            if cpus[other] >> 6 == word:
                allowed = allowed & ~(1 << (cpus[other] & 63))
        changed = changed or mask[word] != allowed
        mask[word] = allowed
    if changed:
        call_system(args[SET_AFFINITY], thread, 8 * MASK_WORDS, address_of(mask), 0, 0)
'''

_WORKER = '''
@kernel
def thread_worker(args, tid, nth):
    """Run thread `tid` of every step that is posted, until told to stop."""
    base = address_of(args)
    mail = base + 8 * (MAIL + 8 * tid)
    left = base + 8 * LEFT
    cpus = pointer_at_i64(args[CPUS])
    seen = 0
    while True:
        call_kernel(args[CONTROL_WAIT], base, mail, seen)
        seen += 1
        if atomic_load(base + 8 * STOP) != 0:
            return
        job = atomic_load(base + 8 * JOB)
        if args[GET_CPU] != 0:
            cpu = call_system(args[GET_CPU], 0, 0, 0, 0, 0) & 0xFFFFFFFF
            for other in range(tid):
                if cpus[other] == cpu:
                    call_kernel(args[CONTROL_APART], base, tid, 0)
                    cpu = call_system(args[GET_CPU], 0, 0, 0, 0, 0) & 0xFFFFFFFF
            if cpus[tid] != cpu:
                cpus[tid] = cpu
        call_kernel(args[CONTROL_WALK], job, tid, pointer_at_i64(job)[THREADS])
        atomic_add(left, -1)
        if atomic_load(left + 8) > 0 and args[SYSCALL] != 0:
            call_system(args[SYSCALL], args[FUTEX], left, FUTEX_WAKE, 1, 0)
'''

_RUN = '''
@kernel
def tape_run(args, tid, nth):
    """Run the step of context `args[0]` from its PC on; its first `args[1]` slots follow."""
    context = pointer_at_i64(args[0])
    slots = pointer_at_i64(context[SLOTS])
    for word in range(args[1]):
        slots[word] = args[2 + word]
    context[START] = context[PC]
    if context[PC] == 0:
        context[ERROR] = 0
    threads = context[THREADS]
    base = context[CONTROL]
    left = base + 8 * LEFT
    if threads > 1:
        control = pointer_at_i64(base)
        cpus = pointer_at_i64(control[CPUS])
        if control[GET_CPU] != 0:
            cpu = call_system(control[GET_CPU], 0, 0, 0, 0, 0) & 0xFFFFFFFF
            if cpus[0] != cpu:
                cpus[0] = cpu
        atomic_store(base + 8 * JOB, args[0])
        atomic_store(left, threads - 1)
        for worker in range(1, threads):
            mail = base + 8 * (MAIL + 8 * worker)
            if control[GET_CPU] != 0 and atomic_load(mail + 8) > 0:
                number = pointer_at_i64(control[NUMBERS])[worker]
                call_kernel(control[CONTROL_APART], base, worker, number)
            atomic_add(mail, 1)
            if atomic_load(mail + 8) > 0 and control[SYSCALL] != 0:
                call_system(control[SYSCALL], control[FUTEX], mail, FUTEX_WAKE, 1, 0)
    call_kernel(context[WALK], args[0], 0, threads)
    if threads > 1:
        working = atomic_load(left)
        while working > 0:
            call_kernel(context[WAIT], base, left, working)
            working = atomic_load(left)
'''

_WALK = '''
@kernel
def tape_walk(args, tid, nth):
    """Walk the tape of context `args` as thread `tid` of `nth`."""
    context = pointer_at_i64(address_of(args))
    code = pointer_at_i64(context[CODE])
    slots = pointer_at_i64(context[SLOTS])
    relocations = pointer_at_i64(context[RELOCATIONS])
    here = context[AREA] + tid * context[AREA_BYTES]
    area = pointer_at_i64(here)
    profile = 0
    if tid == 0:
        profile = context[PROFILE]
    times = pointer_at_i64(profile)
    timed = -1
    since = 0
    pc = context[START]
    while True:
        row = code + pc * ROW
        op = row[0]
        pc += 1
        if profile != 0 and (op == CALL or op == HOST or op == CHECK or op == END):
            call_system(context[CLOCK], CLOCK_ID, profile, 0, 0, 0)
            now = times[0] * 1000000000 + times[1]
            if timed >= 0:
                times[2 + 2 * timed] += now - since
                times[3 + 2 * timed] += 1
            since = now
            timed = -1
        if op == CALL:
            timed = row[4]
            if row[3] == ALL:
                call_kernel(row[1], here + row[2], tid, nth)
            elif tid == 0 or row[3] == EACH:
                call_kernel(row[1], here + row[2], 0, 1)
        elif op == BARRIER:
            if nth > 1:
                call_kernel(context[BARRIER_ENTRY], context[CONTROL], tid, nth)
        elif op == RESOLVE:
            if row[3] == 0 or area[0] != context[GENERATION]:
                for index in range(row[1], row[2]):
                    entry = relocations + index * ROW
                    address = entry[2] + (here if entry[1] < 0 else slots[entry[1]])
                    for level in range(LEVELS):
                        address += entry[3 + level] * area[COUNTERS + level]
                    address += entry[3 + LEVELS] * tid
                    area[entry[0]] = address
                if row[3] != 0:
                    area[0] = context[GENERATION]
        elif op == LOOP:
            area[COUNTERS + row[1]] = -1
        elif op == NEXT:
            count = area[COUNTERS + row[1]] + 1
            taken = context[AREA] + 8 * row[5]
            if row[5] != 0:
                count = atomic_add(taken, 1)
            area[COUNTERS + row[1]] = count
            trips = row[2]
            if row[3] >= 0:
                trips = pointer_at_i64(area[row[3]])[0]
            if count >= trips:
                pc = row[4]
                if row[5] != 0 and count == trips + nth - 1:
                    atomic_store(taken, 0)
        elif op == BRANCH:
            if row[1] == ALWAYS:
                pc = row[3]
            elif (pointer_at_u8(area[row[2]])[0] != 0) == (row[1] == IF_TRUE):
                pc = row[3]
        elif op == CHECK:
            if context[ERROR] != 0:
                if tid == 0:
                    context[STATUS] = CHECK
                    context[DETAIL] = context[ERROR]
                    context[PC] = 0
                return
        elif op == HOST:
            if tid == 0:
                context[STATUS] = HOST
                context[DETAIL] = row[1]
                context[PC] = pc
            return
        else:
            if tid == 0:
                context[STATUS] = END
                context[PC] = 0
            return
'''

_TEXTS = {
    "tape_run": _RUN,
    "tape_walk": _WALK,
    "thread_wait": _WAIT,
    "thread_barrier": _BARRIER,
    "thread_apart": _APART,
    "thread_worker": _WORKER,
}
_NAMES = re.compile(r"\b[A-Z][A-Z_]+\b")


@cache
def source(name: str) -> KernelSource:
    """The kernel called ``name``: its text with the constants it uses written before it."""
    text = _TEXTS[name]
    used = sorted({word for word in _NAMES.findall(text) if word in _CONSTANTS})
    constants = "\n".join(f"{word} = {_CONSTANTS[word]}" for word in used)
    title = text[text.index('"""') :].splitlines()[0]
    return KernelSource(name, f"{title}\n{_HEADER}\n{constants}\n\n{text}")


def executor_kernels() -> list[KernelSource]:
    """All of them."""
    return [source(name) for name in _TEXTS]


@cache
def _addresses(names: tuple[str, ...], plain: bool, target: str) -> Mapping[str, int]:
    return load([source(name) for name in names]).addresses


def tape_addresses() -> Mapping[str, int]:
    """Addresses of ``tape_run`` and ``tape_walk``, all that a serial step needs."""
    names = ("tape_run", "tape_walk")
    return _addresses(names, flags.DISABLE_JIT.value, chosen_target().identity)


def thread_addresses() -> Mapping[str, int]:
    """Addresses of the kernels that steps on several threads need beside those."""
    names = ("thread_wait", "thread_barrier", "thread_apart", "thread_worker")
    return _addresses(names, flags.DISABLE_JIT.value, chosen_target().identity)


@cache
def entry(address: int, holding: bool) -> Entry:
    """The native function at ``address``; one that is ``holding`` keeps the GIL meanwhile."""
    return (_HOLDING if holding else _RELEASING)(address)


def system_address(*names: str) -> int:
    """Address of the first C library function of ``names`` that exists, else 0."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no such library
        return 0
    for name in names:
        if hasattr(library, name):
            return int(ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0)
    return 0

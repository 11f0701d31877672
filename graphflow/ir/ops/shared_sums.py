"""Sums of two ranks that map each other's memory, as kernels: no Python from begin to end.

What Python says about a sum lies in words before the vector, its *head*, which this rank alone
reads.  Where a head is not :attr:`State.READY`, or the other rank is late, in another collective
or has NaN, the kernels leave everything as it is to Python, which can wait and complain.
"""

from __future__ import annotations

import enum

from graphflow.ir.op import ROOM_HEAD


class State(enum.IntEnum):
    """What has become of a sum."""

    UNKNOWN = 0  # Python begins it
    READY = 1  # a kernel may begin it
    BEGUN = 2
    DONE = 3  # added up; the other rank's vector is not needed any more


class Head(enum.IntEnum):
    """The words of a head.  A rank's vectors are numbered, and so are its collectives."""

    STATE = 0
    NUMBER = 1  # of the vector, from the kernel that begins it
    COLLECTIVE = 2  # likewise
    ARRIVED = 3  # address of the last number that this rank has made …
    READ = 4  # … and has read
    OTHER_ARRIVED = 5  # address of the last number that the other rank has made
    BEFORE = 6  # address of the head of the sum to be done first, or 0
    FIRST = 7  # addresses of the vectors, in the order of ranks
    SECOND = 8
    COUNT = 9  # of float32 values
    SCALE = 10  # what the sum is multiplied by, a float32
    FINITE = 11  # 1: NaN and infinity are Python's business
    LOOKS = 12  # how often to look whether the other rank has come
    SEEN = 13  # address of the number of this rank's last collective, or 0: there is no board
    SLOTS = 14  # how many of the last ones the board describes
    NUMBERS = 15  # address of their numbers, a word a slot …
    OTHER_NUMBERS = 16  # … and of the other rank's
    TEXTS = 17  # likewise of their descriptions
    OTHER_TEXTS = 18
    TEXT_WORDS = 19  # words of a description
    TEXT = 20  # address of this one's


ADDING_UP = """\
    seen = u32(0)
    for i in range(count):
        x = u32(u32(first[i] & u32(0x7FFFFFFF)) + u32(0x00800000))
        y = u32(u32(second[i] & u32(0x7FFFFFFF)) + u32(0x00800000))
        seen = u32(seen | u32(x | y))
        out[i] = (a[i] + b[i]) * scale
    finite = 1 - (i64(seen) >> 31)
"""
"""``out = (a + b) * scale``, and whether ``a`` and ``b`` are ``finite``: the highest bit of
``seen`` is set where an exponent has all of its bits, as no finite number's has."""

_NUMBERS = "\n".join(f"{word.name} = {int(word)}" for kind in (State, Head) for word in kind)

_BEGIN = f'''\
"""Let the other rank have the vector at args[2]; its ticket, minus where its head is, at args[3]

args[0]: whether that was done.  args[1] is where the token lies, which says nothing here.
"""
from graphflow.codegen.atomics import atomic_store
from graphflow.codegen.prelude import address_of, kernel, pointer_at_i64

{_NUMBERS}


@kernel
def begin_shared_sum(args, tid, nth):
    head = args[2] - {ROOM_HEAD}
    words = pointer_at_i64(head)
    ready = words[STATE] == READY
    if ready:
        words[STATE] = BEGUN
        words[COLLECTIVE] = 0
        if words[SEEN] != 0:
            number = pointer_at_i64(words[SEEN])[0] + 1
            slot = number % words[SLOTS]
            said = pointer_at_i64(words[TEXTS] + 8 * slot * words[TEXT_WORDS])
            text = pointer_at_i64(words[TEXT])
            atomic_store(words[NUMBERS] + 8 * slot, 0)
            for word in range(words[TEXT_WORDS]):
                said[word] = text[word]
            atomic_store(words[NUMBERS] + 8 * slot, number)
            atomic_store(words[SEEN], number)
            words[COLLECTIVE] = number
        number = pointer_at_i64(words[ARRIVED])[0] + 1
        words[NUMBER] = number
        atomic_store(words[ARRIVED], number)
        pointer_at_i64(args[3])[0] = -head
    pointer_at_i64(address_of(args))[0] = 1 if ready else 0
'''

_FINISH = f'''\
"""The sum whose ticket lies at args[1], written to args[2]

args[0]: whether that was done.
"""
from graphflow.codegen.atomics import atomic_load, atomic_store, pause
from graphflow.codegen.prelude import (
    address_of, i64, kernel, pointer_at_f32, pointer_at_i64, pointer_at_u32, u32,
)

{_NUMBERS}


@kernel
def finish_shared_sum(args, tid, nth):
    done = pointer_at_i64(address_of(args))
    done[0] = 0
    head = -pointer_at_i64(args[1])[0]
    if head <= 0:
        return  # Python began it
    words = pointer_at_i64(head)
    if words[STATE] != BEGUN:
        return
    if words[BEFORE] != 0 and pointer_at_i64(words[BEFORE])[STATE] != DONE:
        return
    looks = words[LOOKS]
    while atomic_load(words[OTHER_ARRIVED]) < words[NUMBER]:
        looks -= 1
        if looks < 0:
            return
        pause()
    if words[SEEN] != 0:
        slot = words[COLLECTIVE] % words[SLOTS]
        text = pointer_at_i64(words[TEXT])
        said = pointer_at_i64(words[OTHER_TEXTS] + 8 * slot * words[TEXT_WORDS])
        if atomic_load(words[OTHER_NUMBERS] + 8 * slot) == words[COLLECTIVE]:
            for word in range(words[TEXT_WORDS]):
                if text[word] != said[word]:
                    return
    a = pointer_at_f32(words[FIRST])
    b = pointer_at_f32(words[SECOND])
    first = pointer_at_u32(words[FIRST])
    second = pointer_at_u32(words[SECOND])
    scale = pointer_at_f32(head + 8 * SCALE)[0]
    out = pointer_at_f32(args[2])
    count = words[COUNT]
{ADDING_UP}
    if finite == 0 and words[FINITE] != 0:
        return
    words[STATE] = DONE
    atomic_store(words[READ], words[NUMBER])
    done[0] = 1
'''
BEGIN = ("begin_shared_sum", _BEGIN)
FINISH = ("finish_shared_sum", _FINISH)

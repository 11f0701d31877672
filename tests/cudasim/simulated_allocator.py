"""Memory that is kept for the next of its size: what is taken again, and what must wait.

Run by ``tests/test_cuda.py`` in the simulator, with stand-ins for what a driver says.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.codegen.cuda import toolchain as chain
from graphflow.errors import OutOfMemoryError
from graphflow.runtime.cuda import allocator as memory
from graphflow.runtime.cuda import lending
from graphflow.runtime.cuda.memory import Block
from tests.threads import in_threads


class Event:
    """What comes after all that a stream was given; ``come`` says whether it has."""

    def __init__(self) -> None:
        self.stream, self.come, self.waited = None, False, False

    def record(self, stream: Any = None) -> None:
        self.stream = stream

    def wait(self, stream: Any) -> None:
        self.waited = True

    def query(self) -> bool:
        return self.come

    def synchronize(self) -> None:
        self.come = True


class Driver:
    """In place of a CUDA target: so many bytes and no more, streams and events."""

    def __init__(self, room: int) -> None:
        self.room, self.used = room, 0
        self.events: list[Event] = []
        self.cleared = 0

    def device_array(self, size: int, dtype: Any) -> Any:
        if self.used + size > self.room:
            raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
        self.used += size
        return Given(self, size)

    def event(self, timing: bool = True) -> Event:
        self.events.append(Event())
        return self.events[-1]

    def external_stream(self, number: int) -> str:
        return f"stream {number}"

    def default_stream(self) -> str:
        return "ours"

    legacy_default_stream = per_thread_default_stream = default_stream

    def current_context(self) -> Any:
        return SimpleNamespace(deallocations=SimpleNamespace(clear=self.clear))

    def clear(self) -> None:
        self.cleared += 1


class Given:
    """Memory of the driver's, which goes back with the last reference."""

    def __init__(self, driver: Driver, size: int) -> None:
        self.driver, self.size = driver, size

    def __del__(self) -> None:
        self.driver.used -= self.size


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    made = Driver(1 << 16)
    monkeypatch.setattr(memory, "toolchain", lambda: chain.Toolchain("stand-in", "1", made))
    monkeypatch.setattr(memory, "is_simulated", lambda: False)
    yield made


def test_the_next_of_a_size_gets_what_was_freed(driver: Driver) -> None:
    one = memory.Allocator(0)
    first, other = one.take(1000), one.take(3000)
    assert one.asked == 2 and one.allocated.now == 1024 + 3072 == driver.used
    one.give(first, 1000, set())
    third, fourth = one.take(3000), one.take(900)
    assert third is not other and fourth is first, "1000 and 900 are 1024"
    assert (one.asked, one.reused) == (3, 1) and one.reserved.now == driver.used
    one.give(other, 3000, set())
    del other
    one.collect()
    assert one.reserved.now - one.allocated.now == 3072
    one.empty()
    assert one.reserved.now == one.allocated.now == driver.used and driver.cleared == 1


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_in_two_hands_and_the_counts_are_right(driver: Driver, seed: int) -> None:
    chance = random.Random(seed)
    one, held = memory.Allocator(0), []
    for step in range(400):
        if held and chance.random() < 0.5:
            handle, size = held.pop(chance.randrange(len(held)))
            one.give(handle, size, {7} if chance.random() < 0.2 else set())
            del handle
        else:
            size = chance.choice([0, 1, 256, 257, 1000, 5000])
            try:
                held.append((one.take(size), size))
            except OutOfMemoryError:
                held.clear()
                one = memory.Allocator(0)
                driver.used = 0
                continue
        for event in driver.events:
            event.come = event.come or chance.random() < 0.3
        one.collect()
        assert len({id(h) for h, _ in held}) == len(held), f"seed {seed}, step {step}"
        assert one.allocated.now == sum(memory.rounded(n) for _, n in held)
        assert one.reserved.now >= one.allocated.now and one.blocks == len(held)
    assert one.reused > 20


def test_large_sizes_are_whole_pages() -> None:
    assert [memory.rounded(n) for n in (0, 1, 256, 257, 1 << 20)] == [256, 256, 256, 512, 1 << 20]
    assert memory.rounded((1 << 20) + 1) == 2 << 20 and memory.rounded(5 << 20) == 6 << 20


def test_without_memory_what_is_kept_goes_back_first(driver: Driver) -> None:
    one = memory.Allocator(0)
    one.give(one.take(40_000), 40_000, set())
    half = one.take(20_000)
    assert driver.used == 40_192 + 20_224
    whole = one.take(41_000)  # there are 65,536
    assert one.retries == 1 and one.failures == 0 and driver.used == 20_224 + 41_216
    with pytest.raises(OutOfMemoryError, match=r"no 10.2 kB .* of cuda:0 .* 61.4 kB are held"):
        one.take(10_000)
    assert one.failures == 1 and one.allocated.now == driver.used
    del half, whole


def test_memory_used_on_another_stream_waits_for_it(driver: Driver) -> None:
    one = memory.Allocator(0)
    handle = one.take(256)
    one.give(handle, 256, {5})
    assert one.take(256) is not handle, "stream 5 may still work on it"
    (event,) = driver.events
    assert event.stream == "stream 5"
    event.come = True
    assert one.take(256) is handle
    one.give(handle, 256, {5, 6})
    del handle
    before = driver.used
    one.empty()
    assert all(e.come for e in driver.events) and len(driver.events) == 3
    assert driver.used == before - 256


def test_memory_whose_address_was_told_goes_back_to_the_driver(driver: Driver) -> None:
    one = memory.Allocator(0)
    handle = one.take(256)
    one.give(handle, 256, {memory.ANY})
    del handle
    one.collect()
    assert driver.used == one.reserved.now == 0 and not driver.events


def test_what_is_lent_says_on_which_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(lending, "order", lambda *streams: asked.append(streams))
    x = gf.ones(4).cuda()
    block = x._eager().block
    x.__dlpack__(stream=1), x.__dlpack__(stream=None)
    assert block.streams == set()
    x.__dlpack__(stream=9)
    assert block.streams == {9}
    x.__dlpack__(stream=-1)
    assert block.streams == {9, memory.ANY}
    y = gf.ones(4).cuda()
    assert y._eager().__cuda_array_interface__["stream"] == 1
    assert y._eager().block.streams == {memory.ANY}


def test_steps_take_again_what_steps_before_freed() -> None:
    step = gf.compile(lambda x: (x @ x).softmax(1) + 1)
    x = gf.randn(8, 8).cuda()
    step(x), step(x)
    gc.collect()
    before = gf.cuda.memory_stats()
    for _ in range(5):
        step(x)
    after = gf.cuda.memory_stats()
    assert after["num_device_alloc"] == before["num_device_alloc"]
    assert after["num_alloc_reused"] >= before["num_alloc_reused"] + 5
    assert gf.cuda.memory_reserved() >= gf.cuda.memory_allocated() > 0


def test_the_numbers_of_pytorch() -> None:
    gc.collect()
    gf.cuda.empty_cache()
    gf.cuda.reset_peak_memory_stats()
    held = gf.cuda.memory_allocated()
    x = gf.zeros(1000).cuda()
    assert gf.cuda.memory_allocated() == held + 4096
    del x
    assert gf.cuda.memory_allocated() == held and gf.cuda.max_memory_allocated() == held + 4096
    assert gf.cuda.memory_reserved() >= held + 4096
    gf.cuda.empty_cache()
    assert gf.cuda.memory_reserved() == held and gf.cuda.max_memory_reserved() >= held + 4096
    found = gf.cuda.memory_stats()
    assert found["allocated_bytes.all.current"] == held
    assert found["allocated_bytes.all.allocated"] - found["allocated_bytes.all.freed"] == held
    gf.cuda.reset_peak_memory_stats()
    assert gf.cuda.max_memory_reserved() == gf.cuda.max_memory_allocated() == held
    gf.cuda.reset_accumulated_memory_stats()
    found = gf.cuda.memory_stats()
    assert found["num_device_alloc"] == found["allocated_bytes.all.freed"] == 0
    assert "reserved_bytes.all.peak" in gf.cuda.memory_summary()
    assert all(isinstance(n, int) for n in gf.cuda.mem_get_info())


def test_several_threads_do_not_share_blocks() -> None:
    def work(number: int) -> None:
        for _ in range(60):
            block = Block(64)
            block.write(0, np.full(16, number, np.int32))
            found = block.read(0, (16,), np.dtype(np.int32))
            assert set(found.tolist()) == {number}

    in_threads(4, work)


def test_blocks_of_a_captured_graph_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.cudasim.simulated_replay import recorded

    recorded(monkeypatch)
    layer = gf.nn.Linear(4, 4).cuda()
    step = gf.compile(lambda x: layer(x).cumsum(0).softmax(1).cumsum(1))
    x = gf.randn(4, 4).cuda()
    wanted = step(x).tolist()
    assert step(x).tolist() == wanted
    state = {id(p._eager().block.handle) for p in layer.parameters()}
    layer.weight.data = layer.weight.detach().clone()
    gc.collect()
    others = [gf.zeros(4, 4).cuda() for _ in range(8)]
    assert not state & {id(y._eager().block.handle) for y in others}
    assert step(x).tolist() == wanted and step(x).tolist() == wanted

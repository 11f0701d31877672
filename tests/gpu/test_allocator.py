"""Memory that is kept for the next of its size, with a real driver."""

from __future__ import annotations

import gc

import pytest

import graphflow as gf
from graphflow.runtime.cuda.memory import Block


def test_steps_ask_the_driver_for_nothing_new() -> None:
    step = gf.compile(lambda x: (x @ x).softmax(1) + 1)
    x = gf.randn(256, 256).cuda()
    for _ in range(3):
        step(x)
    before = gf.cuda.memory_stats()["num_device_alloc"]
    for _ in range(50):
        step(x)
    assert gf.cuda.memory_stats()["num_device_alloc"] == before


def test_what_is_kept_goes_back() -> None:
    gc.collect()
    gf.cuda.empty_cache()
    free = gf.cuda.mem_get_info()[0]
    x = gf.zeros(1 << 28, dtype=gf.uint8).cuda()
    del x
    assert gf.cuda.memory_reserved() - gf.cuda.memory_allocated() >= 1 << 28
    assert gf.cuda.mem_get_info()[0] <= free - (1 << 28)
    gf.cuda.empty_cache()
    assert gf.cuda.mem_get_info()[0] > free - (1 << 27)


def test_a_full_device_gives_back_what_is_kept_first() -> None:
    gf.cuda.empty_cache()
    free, _ = gf.cuda.mem_get_info()
    part = free // 10 * 6
    Block(part)
    retries = gf.cuda.memory_stats()["num_alloc_retries"]
    held = Block(part + (64 << 20))
    assert gf.cuda.memory_stats()["num_alloc_retries"] == retries + 1
    with pytest.raises(gf.errors.OutOfMemoryError):
        Block(part)
    del held
    gf.cuda.empty_cache()


def test_memory_lent_to_another_stream_is_not_taken_early() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA here")
    stream = torch.cuda.Stream()
    x = gf.ones(1 << 24).cuda()
    with torch.cuda.stream(stream):
        theirs = torch.from_dlpack(x)
        torch.cuda._sleep(200_000_000)
        total = theirs.sum()
        del theirs, x
    y = gf.zeros(1 << 24).cuda()  # of the same size: it must not lie there yet
    stream.synchronize()
    assert total.item() == 1 << 24 and y.sum().item() == 0

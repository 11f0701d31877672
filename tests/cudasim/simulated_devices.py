"""Devices by name, streams and events, memory that is lent, and what goes wrong with a device.

Run by ``tests/test_cuda.py`` in the simulator.
"""

from __future__ import annotations

import os

import pytest

import graphflow as gf
from graphflow.codegen.cuda import toolchain as chain
from graphflow.errors import DeviceLostError, GraphFlowError, OutOfMemoryError
from graphflow.runtime.cuda import allocator, current


def test_a_device_that_is_not_there_is_refused() -> None:
    for call in (
        lambda: gf.ones(2).to("cuda:3"),
        lambda: gf.cuda.set_device(3),
        lambda: gf.cuda.device(3),
    ):
        with pytest.raises(GraphFlowError, match=r"'cuda:3' is not available"):
            call()
    with gf.cuda.device(0):
        assert gf.cuda.current_device() == 0 and gf.cuda.device_count() == 3


def test_tensors_are_made_where_the_context_or_the_default_says() -> None:
    with gf.device("cuda"):
        layer = gf.nn.Linear(2, 2)
        for made in (gf.ones(2), gf.tensor([1.0]), gf.randn(2), gf.arange(3), layer.weight):
            assert made.device == gf.device("cuda", 0)
        assert gf.zeros(1, device="cpu").device == gf.device("cpu")
        with gf.device("cpu"):
            assert gf.zeros(1).device == gf.device("cpu")
        assert gf.zeros(1).is_cuda
    assert gf.zeros(1).is_cpu
    gf.set_default_device("cuda:1")
    try:
        assert gf.get_default_device() == gf.zeros(1).device == gf.device("cuda:1")
        there = gf.ones(2, device="cpu")
        assert (there + 1).is_cpu and gf.rand_like(there).is_cpu
    finally:
        gf.set_default_device(None)
    assert gf.zeros(1).is_cpu and gf.get_default_device() == gf.device("cpu")


def test_streams_and_events() -> None:
    stream, start = gf.cuda.Stream(), gf.cuda.Event(enable_timing=True)
    end = gf.cuda.Event(enable_timing=True)
    with pytest.raises(GraphFlowError, match="recorded"):
        start.elapsed_time(end)
    start.record()
    with gf.cuda.stream(stream):
        x = gf.ones(3).cuda() * 2
    stream.record_event(end)
    gf.cuda.current_stream().wait_stream(stream)
    end.synchronize()
    assert start.elapsed_time(end) >= 0 and end.query() and stream == gf.cuda.default_stream()
    assert x.tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="enable_timing"):
        start.elapsed_time(gf.cuda.Event())


class Full:
    """In place of a CUDA target: no memory for more than ``most`` bytes at a time."""

    def __init__(self, cuda: object, most: int, error: Exception) -> None:
        self.cuda, self.most, self.error = cuda, most, error

    def __getattr__(self, name: str) -> object:
        return getattr(self.cuda, name)

    def device_array(self, size: int, dtype: object) -> object:
        if size > self.most:
            raise self.error
        return self.cuda.device_array(size, dtype)  # type: ignore[attr-defined]


ERRORS = [MemoryError("all gone"), RuntimeError("[2] Call to cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY")]


@pytest.mark.parametrize("error", ERRORS, ids=["simulator", "driver"])
@pytest.mark.parametrize("built", [False, True], ids=["first call", "later call"])
def test_a_step_without_memory_says_what_it_needs_and_changes_nothing(
    error: Exception, built: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = gf.zeros(2000).cuda()

    def step(x: gf.Tensor) -> gf.Tensor:
        total.add_(x.sum(1))
        return (x @ x.T).cumsum(0) @ x

    step = gf.compile(step)
    x = gf.ones(2000, 1).cuda()
    if built:
        program = gf.compile(lambda y: (total.add_(y), y.cumsum(0))[1])
        y = gf.ones(2000).cuda()
        program(y)
        step, x = program, y
    before = total.tolist()
    full = Full(chain.toolchain().cuda, 4096, error)
    held = gf.cuda.memory_allocated()
    monkeypatch.setattr(allocator, "toolchain", lambda: chain.Toolchain("full", "1", full))
    gf.cuda.empty_cache()
    with pytest.raises(OutOfMemoryError, match=r"needs .* for temporaries.*are held") as caught:
        step(x)
    assert isinstance(caught.value, MemoryError)
    assert total.tolist() == before and gf.cuda.memory_allocated() == held


def test_other_errors_of_the_driver_are_not_taken_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Full(chain.toolchain().cuda, 0, RuntimeError("CUDA_ERROR_NOT_PERMITTED"))
    monkeypatch.setattr(allocator, "toolchain", lambda: chain.Toolchain("full", "1", full))
    gf.cuda.empty_cache()
    with pytest.raises(RuntimeError, match="NOT_PERMITTED"):
        gf.ones(2).cuda()


class Faulted:
    """Memory of a device on which a kernel has faulted."""

    def __getitem__(self, part: object) -> Faulted:
        return self

    def copy_to_host(self) -> None:
        raise RuntimeError("[700] Call to cuMemcpyDtoH results in CUDA_ERROR_ILLEGAL_ADDRESS")


def test_a_kernel_that_faults_is_said_once_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current.Started, "dead", "")
    x, other = gf.ones(2).cuda(), gf.ones(2)
    monkeypatch.setattr(x._eager().block, "handle", Faulted())
    with pytest.raises(DeviceLostError, match=r"kernel on cuda:0 has faulted .CUDA_ERROR_ILLEGAL"):
        x.tolist()
    for later in (lambda: other.cuda(), lambda: x + 1, lambda: gf.cuda.Event()):
        with pytest.raises(DeviceLostError, match="cannot use it any more"):
            later()
    assert (other + 1).tolist() == [2, 2], "the CPU is not concerned"


def test_a_driver_that_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "is_simulated", lambda: False)
    monkeypatch.setattr(chain, "_driver_version", lambda: 12)
    monkeypatch.setattr(chain, "_compiler_version", lambda: 13)
    found = chain.state.__wrapped__()
    assert not found.usable and "driver is for CUDA 12" in str(found) and "cu12" in str(found)
    monkeypatch.setattr(chain, "_driver_version", lambda: None)
    assert "no CUDA driver" in str(chain.state.__wrapped__())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_says_that_cuda_does_not_live_on() -> None:
    gf.ones(2).cuda()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            gf.ones(2).cuda()
            said = "nothing"
        except GraphFlowError as error:
            said = str(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    assert "forked" in os.read(reading, 1000).decode()
    assert gf.ones(2).cuda().is_cuda


def test_programs_explain_how_they_are_launched() -> None:
    program = gf.compile(lambda x: (x * 2).sum())
    program(gf.ones(3).cuda())
    text = str(program.explain())
    assert "device: cuda:0" in text and "one by one, for the simulator has no driver" in text
    assert "device:" not in str(_here().explain())


def _here():  # type: ignore[no-untyped-def]
    program = gf.compile(lambda x: x + 1)
    program(gf.ones(3))
    return program

"""Memory on a device that is lent and borrowed: ``__cuda_array_interface__`` and DLPack.

Run by ``tests/test_cuda.py`` in the simulator, whose device memory is ordinary memory.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.errors import DTypeError, GraphFlowError
from graphflow.runtime.cuda.lending import order
from graphflow.runtime.dlpack import take


def foreign(array: Any, **more: Any) -> Any:
    """An array of another library, as its interface describes it."""
    described = {
        "shape": array.shape, "typestr": array.dtype.str, "strides": array.strides, "version": 3,
        "data": (array.__array_interface__["data"][0], False), **more,
    }  # fmt: skip
    return SimpleNamespace(__cuda_array_interface__=described, owner=array)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "float16"])
def test_arrays_of_others_are_tensors_over_their_memory(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for view in (array, array[:, ::-1, 1::2], array.T, array[1, 2, 3]):
        x = gf.as_tensor(foreign(view))
        assert x.is_cuda and x.dtype == getattr(gf, dtype) and x.tolist() == view.tolist()
    x = gf.as_tensor(foreign(array[:, ::-1]))
    x[0, 0, 0] = 1
    assert array[0, 2, 0] == 1, "the memory is shared"
    copy = gf.tensor(foreign(array))
    copy.zero_()
    assert array.any() and not copy.cpu().numpy().any()


def test_borrowed_memory_takes_part_in_everything() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    x = gf.as_tensor(foreign(array[:, ::2])).requires_grad_()
    (x.exp() @ x.T).sum().backward()
    y = gf.tensor(array[:, ::2].copy(), requires_grad=True)
    (y.exp() @ y.T).sum().backward()
    assert x.grad is not None and y.grad is not None
    np.testing.assert_allclose(x.grad.cpu().numpy(), y.grad.numpy(), rtol=1e-5)
    step = gf.compile(lambda a, out: out.add_(a))
    step(gf.as_tensor(foreign(array)), gf.as_tensor(foreign(array)))
    assert array.tolist() == (np.arange(12).reshape(3, 4) * 2.0).tolist()


def test_what_cannot_be_borrowed_is_said() -> None:
    array = np.arange(4.0)
    with pytest.raises(GraphFlowError, match="masked"):
        gf.as_tensor(foreign(array, mask=foreign(array)))
    with pytest.raises(GraphFlowError, match="big-endian"):
        gf.as_tensor(foreign(array.astype(">f8")))
    with pytest.raises(DTypeError):
        gf.as_tensor(foreign(array.astype("M8[s]")))
    bytes_ = np.zeros(33, np.uint8)[1:].view(np.float64)
    if bytes_.__array_interface__["data"][0] % 8:
        with pytest.raises(GraphFlowError, match="not aligned"):
            gf.as_tensor(foreign(bytes_))
    data = (array.__array_interface__["data"][0], True)
    x = gf.as_tensor(foreign(array, data=data))
    with pytest.raises(GraphFlowError, match="read-only"):
        x.add_(1)
    assert x.__cuda_array_interface__["data"] == data
    empty = gf.as_tensor(foreign(array[:0], data=(0, False)))
    assert empty.is_cuda and empty.shape == (0,)


def test_tensors_describe_their_memory() -> None:
    x = gf.arange(6.0).reshape(2, 3).cuda()
    found = x.t().__cuda_array_interface__
    assert found["shape"] == (3, 2) and found["strides"] == (4, 12) and found["stream"] == 1
    again = gf.as_tensor(x.t())
    assert again.data_ptr() == x.data_ptr() == found["data"][0] and again.stride() == (1, 3)
    assert x[1:].storage_offset() == 3 and x.t().is_set_to(x.t()) and not x.is_set_to(x.t())
    assert gf.as_tensor(SimpleNamespace(__cuda_array_interface__=found)).tolist() == x.t().tolist()
    with pytest.raises(GraphFlowError, match="requires grad"):
        x.clone().requires_grad_().__cuda_array_interface__  # noqa: B018
    assert not hasattr(x.bfloat16(), "__cuda_array_interface__")


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "bfloat16", "complex64"])
@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_capsules_go_there_and_back(dtype: str, device: str) -> None:
    x = gf.arange(24).reshape(2, 3, 4).to(device).to(getattr(gf, dtype))
    for view in (x, x.transpose(0, 2), x[1], x[0, 1, 2], x[:0]):

        class Lender:
            def __init__(self, tensor: gf.Tensor) -> None:
                self.tensor = tensor

            def __dlpack_device__(self) -> tuple[int, int]:
                return self.tensor.__dlpack_device__()

            def __dlpack__(self, **options: Any) -> Any:
                assert options["stream"] == 1
                return self.tensor.__dlpack__(**options)

        assert view.__dlpack_device__() == (2, int(device[-1]))
        found = gf.from_dlpack(Lender(view))
        assert found.dtype == view.dtype and found.device == view.device
        assert found.tolist() == view.tolist()
    lent = gf.from_dlpack(Lender(x))
    lent.zero_()
    assert not x.cpu().bool().any(), "the memory is shared"


def test_old_lenders_and_memory_that_outlives_its_tensor() -> None:
    class Old:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

        def __dlpack__(self, stream: int | None = None) -> Any:
            return gf.arange(4.0).cuda().__dlpack__(stream=stream)

    gf.ones(4).cuda() * 2  # the program of the operation holds memory
    held = gf.cuda.memory_allocated()
    found = gf.from_dlpack(Old())
    assert gf.cuda.memory_allocated() > held
    assert (found * 2).tolist() == [0, 2, 4, 6]
    view = found[1:]
    del found
    assert view.tolist() == [1, 2, 3]
    del view
    assert gf.cuda.memory_allocated() == held


def test_what_is_asked_for_with_a_capsule() -> None:
    x = gf.arange(4.0).cuda()
    memory, done = take(x.__dlpack__(copy=True, max_version=(1, 0)))
    assert memory.copied and memory.address != x.__cuda_array_interface__["data"][0]
    done()
    memory, done = take(x[2:].__dlpack__(stream=-1))
    assert memory.address == x.__cuda_array_interface__["data"][0] + 8
    assert memory.device == (2, 0)
    done()
    assert np.from_dlpack(x, device="cpu").tolist() == [0, 1, 2, 3]
    with pytest.raises(BufferError, match="to\\(device\\)"):
        x.__dlpack__(dl_device=(2, 1))
    with pytest.raises(BufferError):
        x.__dlpack__(dl_device=(1, 0), copy=False)
    with pytest.raises(ValueError, match="stream 0"):
        x.__dlpack__(stream=0)
    with pytest.raises(GraphFlowError, match="requires grad"):
        x.clone().requires_grad_().__dlpack__()


def test_streams_of_others_are_ordered_with_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a driver is asked for, by a stand-in for it."""
    from graphflow.codegen.cuda import toolchain as chain
    from graphflow.runtime.cuda import allocator, lending

    said: list[str] = []

    class Event:
        def record(self, stream: str) -> None:
            said.append(f"after {stream}")

        def wait(self, stream: str) -> None:
            said.append(f"before {stream}")

    cuda = SimpleNamespace(
        default_stream=lambda: "ours", legacy_default_stream=lambda: "legacy",
        per_thread_default_stream=lambda: "thread", external_stream=lambda n: f"stream {n}",
        event=lambda timing: Event(),
    )  # fmt: skip
    monkeypatch.setattr(lending, "is_simulated", lambda: False)
    for module in (lending, allocator):
        monkeypatch.setattr(module, "toolchain", lambda: chain.Toolchain("x", "1", cuda))
    order(None, 1, 0)
    order(1, None, 0)
    assert said == []
    order(None, 7, 0)
    order(2, None, 0)
    assert said == ["after ours", "before stream 7", "after thread", "before ours"]

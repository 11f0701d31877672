"""First weights are made when somebody reads them; those that are overwritten never are."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from graphflow.cell import Cell, UnfilledCell
from graphflow.runtime import cache, random_floats
from graphflow.runtime.random_floats import KERNEL
from tests.threads import in_threads


@pytest.fixture(autouse=True)
def fillings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes that were filled since the test began."""
    cache.load([KERNEL])
    seen: list[int] = []
    real: Callable[..., None] = random_floats._fill

    def counted(*args: Any) -> None:
        seen.append(args[-1].size)
        real(*args)

    monkeypatch.setattr(random_floats, "_fill", counted)
    yield seen


def unfilled(shape: tuple[int, ...] = (200, 300), seed: int = 7) -> gf.Tensor:
    gf.manual_seed(seed)
    made = gf.empty(*shape).uniform_(-1, 1)
    assert type(made._cell) is UnfilledCell
    return made


def numbers(shape: tuple[int, ...] = (200, 300), seed: int = 7) -> np.ndarray:
    """The same numbers by way of the graph's operation."""
    gf.manual_seed(seed)
    return np.asarray(gf.rand(*shape) * 2 - 1)


def test_what_a_checkpoint_overwrites_is_never_made(fillings: list[int]) -> None:
    source = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 300))
    state = {name: np.asarray(value) for name, value in source.state_dict().items()}
    fillings.clear()
    model = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 300))
    weight = model[0].weight
    assert (weight.shape, weight.dtype, weight.ndim) == ((200, 300), gf.float32, 2)
    model.load_state_dict({name: gf.from_numpy(value) for name, value in state.items()})
    assert not fillings
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(np.asarray(value), state[name])


def test_numbers_do_not_depend_on_who_reads_first() -> None:
    gf.manual_seed(3)
    first, second = gf.empty(200, 300).normal_(), gf.empty(300, 100).uniform_(2, 5)
    later = np.asarray(second).copy(), np.asarray(first).copy()
    gf.manual_seed(3)
    at_once = [gf.empty(200, 300), gf.empty(300, 100)]
    held = [np.asarray(tensor) for tensor in at_once]  # known outside: written at once
    at_once[0].normal_()
    at_once[1].uniform_(2, 5)
    np.testing.assert_array_equal(later[1], held[0])
    np.testing.assert_array_equal(later[0], held[1])


READERS: dict[str, Callable[[gf.Tensor], Any]] = {
    "numpy": lambda t: t.numpy(),
    "array": np.asarray,
    "detach": lambda t: t.detach(),
    "view": lambda t: t.view(300, 200).view(200, 300),
    "clone": lambda t: t.clone(),
    "copy": copy.deepcopy,
    "computed": lambda t: t + 0,
    "parameter": lambda t: nn.Parameter(t).detach(),
    "list": lambda t: np.array(t.tolist(), np.float32),
    "compiled": lambda t: gf.compile(lambda: t * 1)(),
    "given": lambda t: gf.compile(lambda x: x * 1)(t),
    "dlpack": np.from_dlpack,
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_finds_the_numbers(reader: str) -> None:
    expected = numbers()
    tensor = unfilled()
    np.testing.assert_array_equal(np.asarray(READERS[reader](tensor)), expected)
    assert type(tensor._cell) is Cell
    np.testing.assert_array_equal(np.asarray(tensor), expected)


def test_who_holds_the_memory_sees_the_numbers_at_once() -> None:
    expected = numbers()
    tensor = gf.empty(200, 300)
    held, view = tensor.numpy(), tensor[5]
    gf.manual_seed(7)
    tensor.uniform_(-1, 1)
    assert type(tensor._cell) is Cell
    np.testing.assert_array_equal(held, expected)
    np.testing.assert_array_equal(np.asarray(view), expected[5])
    lent = np.zeros((200, 300), np.float32)
    borrowed = gf.from_numpy(lent)
    gf.manual_seed(7)
    borrowed.uniform_(-1, 1)
    np.testing.assert_array_equal(lent, expected)


def test_a_part_that_is_written_lies_among_the_numbers(fillings: list[int]) -> None:
    expected = numbers()
    expected[3] = 5
    fillings.clear()
    tensor = unfilled()
    tensor[3] = 5
    np.testing.assert_array_equal(np.asarray(tensor), expected)
    tensor = unfilled()
    tensor.mul_(0.5)
    np.testing.assert_array_equal(np.asarray(tensor), numbers() * np.float32(0.5))
    fillings.clear()
    tensor = unfilled()
    tensor.zero_()
    tensor.copy_(tensor)
    assert not fillings and not np.asarray(tensor).any()


def test_the_last_filling_counts(fillings: list[int]) -> None:
    tensor = unfilled()
    version = tensor._version
    gf.manual_seed(7)
    tensor.normal_().uniform_(-1, 1)
    assert not fillings and tensor._version > version
    gf.manual_seed(7)
    expected = gf.empty(200, 300)
    held = expected.numpy()
    expected.normal_().uniform_(-1, 1)
    np.testing.assert_array_equal(np.asarray(tensor), held)


def test_threads_wait_for_the_one_that_fills(fillings: list[int]) -> None:
    expected = numbers((700, 900))
    fillings.clear()
    tensor = unfilled((700, 900))
    start = threading.Barrier(4)

    def read(number: int) -> np.ndarray:
        start.wait()
        return np.array(tensor.numpy())

    found = in_threads(4, read)
    assert fillings == [700 * 900]
    for array in found:
        np.testing.assert_array_equal(array, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_forked_child_makes_the_same_numbers() -> None:
    expected = numbers()
    tensor = unfilled()
    held, go = threading.Event(), threading.Event()

    def keep() -> None:
        with UnfilledCell._lock.lock:
            held.set()
            go.wait()

    other = threading.Thread(target=keep)
    other.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(tensor.numpy(), expected) else 1)
    go.set()
    other.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(tensor.numpy(), expected)

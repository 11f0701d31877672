"""Many random numbers at once: the kernel's are NumPy's, wherever it is cut, found or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import graphflow as gf
from graphflow import flags, rng
from graphflow.cell import Filling
from graphflow.ir.ops.generators import philox
from graphflow.runtime import cache, random_floats, shared_work
from graphflow.runtime.random_floats import KERNEL, companions


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and a process that has neither linked nor wanted anything."""
    monkeypatch.setattr(cache, "_linked", {})
    monkeypatch.setattr(random_floats._Wanted, "in_vain", False)
    with flags.override(cache_dir=str(tmp_path / "kernels")):
        yield tmp_path / "kernels"


def fill(filling: Filling | None, out: np.ndarray) -> None:
    assert filling is not None
    filling(out)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernel_makes_numpys_numbers(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.load([KERNEL])
    monkeypatch.setattr(random_floats, "_ALONE", 7)
    monkeypatch.setattr(shared_work.pool, "_budget", threads)
    for seed, call in ((0, 0), (-5, 3 + 2**33), (2**63 - 1, 7)):
        for word, shape in ((0, ()), (1, (0, 3)), (2, (13, 17)), (3, (40, 50, 3))):
            found = np.empty(shape, np.float32)
            fill(random_floats.random_floats(seed, call, (word,)), found)
            index = np.arange(np.prod(shape, dtype=int), dtype=np.uint64)
            bits = philox(seed, call, index, word).reshape(shape)
            expected = (bits >> 8).astype(np.float32) * np.float32(2**-24)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_formulas_are_given_all_numbers_piece_by_piece(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.load([KERNEL])
    monkeypatch.setattr(random_floats, "_ALONE", 100)
    monkeypatch.setattr(random_floats, "PIECE", 64)
    monkeypatch.setattr(shared_work.pool, "_budget", threads)
    parts = [np.empty(1000, np.float32) for _ in range(2)]
    for word, part in enumerate(parts, 1):
        fill(random_floats.random_floats(3, 4, (word,)), part)
    for shape in ((0,), (1,), (8, 125)):
        found = np.empty(shape, np.float32)
        fill(random_floats.random_floats(3, 4, (1, 2), lambda u, v: u / (v - 2)), found)
        u, v = (part[: found.size].reshape(shape) for part in parts)
        np.testing.assert_array_equal(found, u / (v - 2))


def drawn() -> list[np.ndarray]:
    """What eager code draws, of shapes beyond the least that a kernel is looked for."""
    gf.manual_seed(11)
    shape = (3, rng._MANY // 2)
    weights = gf.empty(shape)
    gf.nn.init.kaiming_uniform_(weights)
    parts = gf.zeros(4, *shape)
    parts[1].normal_(1, 0.3)  # in the memory that it is a view of
    parts[2:].transpose(0, 1).uniform_(-2.5, 7)  # neighbours of the view lie apart
    moved = gf.empty(shape).uniform_(gf.tensor(0.25), 2)
    narrow = [gf.rand(shape, dtype=gf.float16), weights.to(gf.float16).normal_(0.1, 3)]
    made = [gf.rand(shape), gf.randn(shape), gf.randn(shape, dtype=gf.bfloat16), weights, parts]
    return [tensor.float().numpy() for tensor in (*made, moved, *narrow)]


@pytest.mark.usefixtures("folder")
def test_what_is_drawn_does_not_depend_on_the_cache() -> None:
    without = drawn()
    assert companions() == [KERNEL]  # wanted, so compiled with the next program
    cache.load([KERNEL])
    for found, expected in zip(drawn(), without, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("folder")
def test_a_program_brings_the_kernel_that_eager_code_wanted() -> None:
    gf.rand(10)
    assert companions() == []  # too few to look for it
    gf.rand(rng._MANY)
    assert cache.find(KERNEL) is None
    gf.compile(lambda x: x + 1.5)(gf.ones(3))
    assert cache.find(KERNEL) is not None
    assert cache.find(KERNEL) == cache.load([KERNEL]).addresses[KERNEL.name]


def test_filled_memory_counts_as_written_to() -> None:
    cache.load([KERNEL])
    weight = gf.nn.Parameter(gf.zeros(rng._MANY))
    with pytest.raises(gf.GraphFlowError, match="a leaf tensor that requires grad"):
        weight.normal_()
    assert not weight.detach().numpy().any()
    scale = gf.ones(rng._MANY, requires_grad=True)
    kept = scale * 2
    loss = (kept * kept).sum()
    with gf.no_grad():
        kept.uniform_()
    with pytest.raises(gf.GraphFlowError, match=r"changed|modified|in place"):
        loss.backward()
    wide = gf.zeros(1).expand(rng._MANY)
    with pytest.raises(gf.GraphFlowError, match="clone"):
        wide.normal_()


def test_without_compiled_kernels_numpy_draws() -> None:
    with flags.override(disable_jit=True):
        assert random_floats.random_floats(1, 2, (0,)) is None

"""Many random numbers at once: the kernel's are NumPy's, wherever it is cut, found or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import graphflow as gf
from graphflow import flags, rng
from graphflow.ir.ops.generators import philox
from graphflow.runtime import cache, random_floats
from graphflow.runtime.random_floats import KERNEL, companions


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and a process that has neither linked nor wanted anything."""
    monkeypatch.setattr(cache, "_linked", {})
    monkeypatch.setattr(random_floats._Wanted, "in_vain", False)
    with flags.override(cache_dir=str(tmp_path / "kernels")):
        yield tmp_path / "kernels"


@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernel_makes_numpys_numbers(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.load([KERNEL])
    monkeypatch.setattr(random_floats, "_ALONE", 7)
    monkeypatch.setattr(random_floats.pool, "_budget", threads)
    for seed, call in ((0, 0), (-5, 3 + 2**33), (2**63 - 1, 7)):
        for word, shape in ((0, ()), (1, (0, 3)), (2, (13, 17)), (3, (40, 50, 3))):
            found = random_floats.random_floats(seed, call, shape, word)
            index = np.arange(np.prod(shape, dtype=int), dtype=np.uint64)
            bits = philox(seed, call, index, word).reshape(shape)
            expected = (bits >> 8).astype(np.float32) * np.float32(2**-24)
            assert found is not None and found.dtype == np.float32
            np.testing.assert_array_equal(found, expected)


def drawn() -> list[np.ndarray]:
    """What eager code draws, of shapes beyond the least that a kernel is looked for."""
    gf.manual_seed(11)
    shape = (3, rng._MANY // 2)
    weights = gf.empty(shape)
    gf.nn.init.kaiming_uniform_(weights)
    narrow = gf.rand(shape, dtype=gf.float16)
    return [gf.rand(shape).numpy(), gf.randn(shape).numpy(), weights.numpy(), narrow.numpy()]


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


def test_without_compiled_kernels_numpy_draws() -> None:
    with flags.override(disable_jit=True):
        assert random_floats.random_floats(1, 2, (5,), 0) is None

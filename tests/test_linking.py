"""Kernels are linked without LLVM, and the processor is known without asking it."""

from __future__ import annotations

import platform
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from kernel_calls import call

import graphflow as gf
from graphflow import flags
from graphflow.codegen import target
from graphflow.codegen.compile import compile_kernels
from graphflow.codegen.schedule import KernelSource
from graphflow.errors import CacheWarning
from graphflow.runtime import cache, elf, linker
from graphflow.runtime import folder as folder_module
from graphflow.runtime.host import HostFile

here = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="objects of other systems are linked by LLVM",
)

CONSTANTS = """\
from graphflow.codegen.prelude import kernel, pointer_f64
@kernel
def constants(args, tid, nth):
    out = pointer_f64(args, 0)
    for i in range(args[1]):
        out[i] = out[i] * 1.25 + 0.3 if out[i] > 0.7 else out[i] - 11.5
"""
MODULUS = """\
from graphflow.codegen.prelude import kernel, pointer_f64
@kernel
def modulus(args, tid, nth):
    a = pointer_f64(args, 0)
    a[0] = a[0] % a[1]
"""


@pytest.fixture(scope="module")
def objects() -> dict[str, bytes]:
    sources = [KernelSource("constants", CONSTANTS), KernelSource("modulus", MODULUS)]
    return dict(compile_kernels(sources).objects)


def computed(address: int) -> np.ndarray:
    values = np.linspace(-2.0, 2.0, 37)
    call(address, values, values.size)
    return values


@here
def test_placed_code_and_constants_compute_what_llvm_links(
    objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = elf.place({"constants": objects["constants"]})
    assert placed is not None
    x = np.linspace(-2.0, 2.0, 37)
    np.testing.assert_allclose(
        computed(placed["constants"]), np.where(x > 0.7, x * 1.25 + 0.3, x - 11.5)
    )
    monkeypatch.setattr(elf, "place", lambda objects: None)
    linked = linker.link({"constants": objects["constants"]})
    np.testing.assert_array_equal(computed(placed["constants"]), computed(linked["constants"]))


@here
def test_what_calls_the_c_library_is_left_to_llvm(objects: dict[str, bytes]) -> None:
    assert elf.place({"modulus": objects["modulus"]}) is None
    addresses = linker.link(objects)
    a = np.array([-7.5, 2.0])
    call(addresses["modulus"], a)
    assert a[0] == 0.5
    assert computed(addresses["constants"]).size == 37


@here
def test_damage_is_left_to_llvm(objects: dict[str, bytes]) -> None:
    data = objects["constants"]
    assert elf.place({"other": data}) is None  # no such symbol
    assert elf.place({"constants": data[: len(data) // 2]}) is None
    assert elf.place({"constants": data[:18] + struct.pack("<H", 183) + data[20:]}) is None
    assert elf.place({"constants": b"not an object"}) is None
    rng = np.random.default_rng(5)
    for _ in range(300):  # whatever it says, it does not crash
        bad = bytearray(data)
        for at in rng.integers(0, len(bad), 3):
            bad[at] = int(rng.integers(0, 256))
        elf.place({"constants": bytes(bad)})


@here
def test_the_processor_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "_warned", set())
    memory = HostFile(lambda: b"1")
    with flags.override(cache_dir=str(tmp_path)):
        assert memory.recall() is None
        facts = target._asked()
        memory.keep(facts)
        assert memory.recall() == facts
        assert HostFile(lambda: b"2").recall() is None  # another version of LLVM
        (file,) = tmp_path.glob("host-*.cpu")
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.warns(CacheWarning, match="damaged"):
            assert memory.recall() is None


@here
def test_a_second_process_needs_no_llvm(tmp_path: Path) -> None:
    code = (
        "import sys, graphflow as gf\n"
        "step = gf.compile(lambda x: (x * 2 + 1).sum())\n"
        "print(step(gf.ones(300)).item(), 'llvmlite' in sys.modules)\n"
    )
    environment = {"GRAPHFLOW_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    answers = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert answers == [["900.0", "True"], ["900.0", "False"]]


def _curve(x: gf.Tensor) -> gf.Tensor:
    return gf.sin(x) * 3.0 + gf.exp(x).sum(1, keepdim=True)


@pytest.fixture
def seen_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[gf.Tensor, gf.Tensor]]:
    """An argument of the curve and its result, of which only the folder knows the program."""
    x = gf.linspace(0, 1, 12).reshape(3, 4)
    with flags.override(cache_dir=str(tmp_path)):
        expected = gf.compile(_curve)(x)
        monkeypatch.setattr(cache, "_linked", {})
        monkeypatch.setattr(cache, "_keys", {})
        yield x, expected


@here
def test_the_code_of_a_plan_needs_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen_before: tuple[gf.Tensor, gf.Tensor]
) -> None:
    x, expected = seen_before
    for path in tmp_path.glob("*.o"):
        path.unlink()
    again = gf.compile(_curve)
    assert again(x).tolist() == expected.tolist()
    loaded = again.programs[0].loaded.loaded
    assert loaded.misses == 0 and loaded.hits == len(loaded.addresses) > 0
    assert not [*tmp_path.glob("*.o")]
    assert {cache.kernel_key(kernel) for kernel in loaded.kernels} <= cache._linked.keys()
    known = {kernel: cache.kernel_key(kernel) for kernel in loaded.kernels}
    monkeypatch.setattr(cache, "_keys", {})
    assert {kernel: cache.kernel_key(kernel) for kernel in loaded.kernels} == known


@here
def test_the_code_of_a_plan_is_for_one_compiler_only(
    monkeypatch: pytest.MonkeyPatch, seen_before: tuple[gf.Tensor, gf.Tensor]
) -> None:
    x, expected = seen_before
    monkeypatch.setattr(cache, "environment", lambda: "another Numba")
    monkeypatch.setattr(cache, "mapped", None)  # not called
    assert gf.compile(_curve)(x).tolist() == expected.tolist()
    assert cache._linked

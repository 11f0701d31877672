"""Kernels for a machine that this process does not run on: compiled, told apart, not linked."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
from kernel_calls import call

import graphflow as gf
from graphflow import flags
from graphflow.codegen.compile import assembly, compile_kernels
from graphflow.codegen.object_files import undefined_symbols
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import chosen_target, host_target
from graphflow.errors import CompileError
from graphflow.runtime import executor
from graphflow.runtime.cache import find, kernel_key
from graphflow.runtime.linker import link

LINUX = "aarch64-unknown-linux-gnu:neoverse-n1"
MACOS = "arm64-apple-macosx11.0:apple-m1"
INTEL = "x86_64-unknown-linux-gnu:haswell"
HEADER = "from graphflow.codegen.prelude import *\n@kernel\n"
SCALE = KernelSource(
    "scale_add",
    HEADER
    + """def scale_add(args, tid, nth):
    a = pointer_f32(args, 0)
    for i in range(args[1]):
        a[i] = a[i] * f32(2.5) + f32(1.0)
""",
)
HALVES = KernelSource(
    "halves",
    HEADER
    + """def halves(args, tid, nth):
    a = pointer_f16(args, 0)
    for i in range(args[1]):
        a[i] = a[i] + f32(1.0)
""",
)
MODULUS = KernelSource(
    "modulus",
    HEADER + "def modulus(args, tid, nth):\n    a = pointer_f64(args, 0)\n    a[0] = a[0] % a[1]\n",
)
ELF_MACHINES = {LINUX: 183, INTEL: 62}


def objects(machine: str, *kernels: KernelSource) -> dict[str, bytes]:
    with flags.override(cpu_features=machine):
        return dict(compile_kernels(kernels).objects)


@pytest.mark.parametrize("machine", [LINUX, INTEL])
def test_objects_are_for_the_machine_that_is_named(machine: str) -> None:
    data = objects(machine, SCALE)["scale_add"]
    assert data.startswith(b"\x7fELF")
    assert struct.unpack_from("<H", data, 18) == (ELF_MACHINES[machine],)


def test_objects_for_macos_are_in_its_format() -> None:
    data = objects(MACOS, SCALE)["scale_add"]
    magic, machine = struct.unpack_from("<II", data)
    assert (magic, machine) == (0xFEEDFACF, 0x0100000C)


@pytest.mark.parametrize("machine", ["", LINUX, MACOS])
def test_names_from_outside_are_found_in_an_object(machine: str) -> None:
    found = objects(machine, MODULUS, SCALE)
    assert "fmod" in undefined_symbols(found["modulus"])
    assert undefined_symbols(found["scale_add"]) == []


@pytest.mark.parametrize("machine", [LINUX, MACOS])
def test_code_is_in_the_machines_own_instructions(machine: str) -> None:
    with flags.override(cpu_features=machine):
        scale, halves = assembly(SCALE), assembly(HALVES)
        wait = assembly(executor.source("thread_wait"))
    assert re.search(r"fmla(\.4s)?\s+v\d+", scale) and "xmm" not in scale
    assert re.search(r"fadd(\.8h)?\s+v\d+", halves) and "\tbl\t" not in halves
    assert re.search(r"\byield\b", wait) and "ldadd" in wait  # a pause; atomic in one instruction


def test_keys_of_objects_tell_machines_apart() -> None:
    keys = set()
    for machine in (None, "-fma", LINUX, MACOS, f"{LINUX}:+sve"):
        with flags.override(cpu_features=machine):
            keys.add(kernel_key(SCALE))
    assert len(keys) == 5


def test_another_machines_kernels_are_not_linked() -> None:
    data = objects(LINUX, SCALE)
    with flags.override(cpu_features=LINUX):
        assert link(data) == {"scale_add": 0}
        assert find(SCALE) is None


def test_another_machines_program_is_there_to_be_looked_at() -> None:
    graph = gf.trace(lambda x: x * 2.5 + 1, gf.TensorSpec((3,)))
    with flags.override(cpu_features=LINUX):
        program = gf.compile(graph)
        assert "ew_" in str(program.explain())
        for _ in range(2):
            with pytest.raises(CompileError, match=f"aarch64.*{host_target().triple}.*CPU_FEAT"):
                program(gf.ones(3))
    np.testing.assert_array_equal(gf.compile(graph)(gf.ones(3)).numpy(), np.full(3, 3.5))


def test_random_numbers_do_not_need_a_kernel_for_this_machine() -> None:
    gf.manual_seed(3)
    here = gf.rand(1000).numpy().copy()
    with flags.override(cpu_features=LINUX):
        gf.manual_seed(3)
        np.testing.assert_array_equal(gf.rand(1000).numpy(), here)


def test_this_machine_by_name_runs() -> None:
    host = host_target()
    generic = "x86-64" if host.is_x86 else "generic"
    with flags.override(cpu_features=f"{host.triple}:{generic}"):
        assert chosen_target().is_host and chosen_target() != host
        address = link(compile_kernels([SCALE]).objects)["scale_add"]
    a = np.arange(7, dtype=np.float32)
    call(address, a, a.size)
    np.testing.assert_array_equal(a, 2.5 * np.arange(7) + 1)


def test_a_machine_is_its_triple_processor_and_edits() -> None:
    with flags.override(cpu_features=f"{LINUX}:+sve,-lse"):
        target = chosen_target()
    assert (target.triple, target.cpu) == tuple(LINUX.split(":"))
    assert target.features == "+sve,-lse" and target.enabled == {"sve"}
    assert target.is_arm64 and target.has_fma and target.has_half_conversion
    assert not (target.is_x86 or target.is_host or target.has_avx512)
    assert target.vector_bytes == 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (":neoverse-n1", "TRIPLE:CPU"),
        ("aarch64-unknown-linux-gnu:", "TRIPLE:CPU"),
        (f"{LINUX}:sve", "signed"),
        (f"{LINUX}:+s ve", "no feature name"),
        ("pdp11-dec-unix:any", "pdp11"),
    ],
)
def test_a_machine_that_is_misspelt_is_an_error(text: str, said: str) -> None:
    with flags.override(cpu_features=text), pytest.raises(CompileError, match=said):
        chosen_target()

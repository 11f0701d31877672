"""Bodies of the vocabulary: written as text, compiled once, linked beside kernels."""

from __future__ import annotations

import platform
import re
import struct
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphflow.codegen import compile as compiling
from graphflow.codegen.compile import Compilation, assembly, compile_kernels
from graphflow.codegen.contraction import linked
from graphflow.codegen.contraction.axes_kernels import Run, tiled_axes_kernel
from graphflow.codegen.contraction.families import run_of
from graphflow.codegen.contraction.instructions import (
    F32,
    F64,
    I32,
    I64,
    POINTER,
    VOID,
    Builder,
    Function,
    vector,
)
from graphflow.codegen.contraction.kernels import tiled_kernel
from graphflow.codegen.contraction.tiling import tiling
from graphflow.codegen.object_files import archive, members, undefined_symbols
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import chosen_target
from graphflow.errors import CompileError
from graphflow.runtime import elf, linker

LINKED_HERE = sys.platform == "linux" and platform.machine() == "x86_64"


def kernels() -> list[KernelSource]:
    """Two that call tiles of the same kind, and one that calls others."""
    tile = tiling(chosen_target(), 4)
    return [
        tiled_kernel("f32", tile),
        tiled_axes_kernel("f32", 4, tile, packed=True),
        tiled_axes_kernel("f32", 4, tile, packed=False),
    ]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of bodies that are compiled from now on, in a process that knows none."""
    found: list[str] = []
    body = compiling._Backend.body

    def noted(backend: compiling._Backend, name: str, text: str) -> Any:
        found.append(name)
        return body(backend, name, text)

    monkeypatch.setattr(compiling, "_known_bodies", {})
    monkeypatch.setattr(compiling._Backend, "body", noted)
    return found


def test_a_body_is_compiled_once_and_comes_with_every_kernel_that_calls_it(
    written: list[str],
) -> None:
    one, two, three = (compile_kernels([kernel]).objects[kernel.name] for kernel in kernels())
    assert len(written) == len(set(written))
    first, second, third = (members("kernel", data) for data in (one, two, three))
    shared = [name for name in first if name.startswith("tile.")]
    assert shared and all(first[name] == second[name] for name in shared)
    assert not [name for name in third if name in shared]
    assert "pack." in " ".join(first.keys() & third.keys())
    again = compile_kernels(kernels()[:1])
    assert again.objects[kernels()[0].name] == one and len(written) == len(set(written))


def test_bodies_that_come_with_known_kernels_are_not_compiled(
    written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = kernels()
    known = compile_kernels([first]).objects
    expected = compile_kernels([second]).objects
    monkeypatch.setattr(compiling, "_known_bodies", {})
    written.clear()
    with Compilation() as compilation:
        compilation.know(known)
        compilation.add(second, Path("second.py"))
        assert compilation.finish().objects == expected
    assert not [name for name in written if name.startswith("tile.")]


@pytest.mark.skipif(not LINKED_HERE, reason="elsewhere LLVM links")
def test_a_body_of_several_kernels_is_linked_once() -> None:
    objects = dict(compile_kernels(kernels()).objects)
    together = elf.laid_out(objects)
    alone = [elf.laid_out({name: data}) for name, data in objects.items()]
    assert together is not None and None not in alone
    assert together.entries.keys() == objects.keys()
    parts = {name: code for n, data in objects.items() for name, code in members(n, data).items()}
    spare = sum(len(code.code) for code in alone if code) - len(together.code)
    assert spare > 0.3 * max(map(len, parts.values()))
    missing = {n: members(n, data)[n] for n, data in objects.items()}
    assert elf.laid_out(missing) is None, "a kernel without its bodies"


def test_families_of_other_heights_have_other_names() -> None:
    """Rows of 28 places are taken 14 and 14 at a time, those of 27 by 14 and 13."""
    families = [run_of("f32", rows, (1, 7), (1, 1), 16) for rows in ((14,), (14, 13), (14, 2))]
    assert len({family.name for family in families}) == len(families)


def test_two_bodies_of_one_name_are_an_error() -> None:
    def make(number: int) -> Function:
        f = Function("same_name", I64, [])
        Builder(f.append_basic_block("entry")).ret(I64(number))
        return f

    linked._written(make, (1,), chosen_target())
    with pytest.raises(AssertionError, match="same_name"):
        linked._written(make, (2,), chosen_target())


@pytest.mark.parametrize("widths", [(28, 27), (26, 25)])
def test_a_later_kernel_whose_last_rows_are_fewer_has_a_body_for_them(
    widths: tuple[int, int],
) -> None:
    """Else the body for more rows would write beyond the result."""
    tile, found = tiling(chosen_target(), 4), []
    for width in widths:
        parts = -(-width // tile.height)
        most = -(-width // parts)
        run = Run(1, 7, most, width - (parts - 1) * most, 1, 1)
        kernel = tiled_axes_kernel("f32", 4, tile, packed=False, along=True, run=run)
        parts_of = members(kernel.name, compile_kernels([kernel]).objects[kernel.name])
        found.append(next(code for name, code in parts_of.items() if name.startswith("lanes_run")))
    assert found[0] != found[1]


def test_undefined_names_are_those_that_no_member_defines() -> None:
    for name, data in compile_kernels(kernels()).objects.items():
        assert undefined_symbols(data) == []
        alone = undefined_symbols(members(name, data)[name])
        assert "tile" in " ".join(alone) and set(alone) <= members(name, data).keys()


def test_archives_give_back_what_they_were_made_of() -> None:
    rng = np.random.default_rng(3)
    for count in range(1, 6):
        parts = {
            "x" * int(rng.integers(1, 40)) + str(i): rng.bytes(int(rng.integers(0, 50)))
            for i in range(count)
        }
        data = archive(parts)
        assert members(next(iter(parts)), data) == parts
        assert data.startswith(b"!<arch>\n") == (count > 1)


def test_a_damaged_archive_is_an_error() -> None:
    data = archive({"one": b"1234", "two": b"567"})
    with pytest.raises((ValueError, struct.error)):
        members("one", data[:-3])
    with pytest.raises(CompileError, match="kernel one"):
        linker.linked_by_llvm({"one": data[:-3]}, chosen_target())
    assert elf.laid_out({"one": data[:-3]}) is None
    rng = np.random.default_rng(4)
    for _ in range(200):  # whatever it says, it does not crash
        bad = bytearray(data)
        bad[int(rng.integers(8, len(bad)))] = int(rng.integers(0, 256))
        elf.laid_out({"one": bytes(bad)})


@pytest.mark.skipif(not chosen_target().is_x86, reason="reads instructions of x86")
def test_a_tile_is_jumped_to() -> None:
    code = assembly(kernels()[0])
    chosen = re.search(r"^tile\.f32\.\S+\.of_\S+:$(.*?)\.Lfunc_end", code, re.M | re.S)
    assert chosen is not None
    assert len(re.findall(r"\bjmp\s+tile\.f32", chosen[1])) > 3 and "call" not in chosen[1]


def parsed(function: Function) -> str:
    """What LLVM reads in a function's text, which it verifies."""
    module = llvm.parse_assembly(str(function))
    module.verify()
    return str(module)


def test_every_instruction_is_one_of_llvm() -> None:
    four = vector(I32, 4)
    f = Function("all_of_them", I64, [POINTER, I64, I64])
    b = Builder(f.append_basic_block("entry"))
    place, x, y = f.args
    total = b.xor(b.and_(b.add(x, y), b.sub(x, y)), b.shl(b.mul(x, y), I64(3)))
    total = b.add(b.sdiv(total, I64(7)), b.udiv(b.neg(total), b.not_(y)))
    whole = b.load(b.gep(place, x, source_etype=I32), typ=four, align=4)
    whole = b.insert_element(whole, I32(-5), I32(1))
    whole = b.select(b.icmp_signed("<", whole, four([1, 2, 3, 4])), whole, four.zero)
    pair = b.shuffle_vector(whole, four.undefined, vector(I32, 2)([3, 0]))
    wide = b.sext(pair, vector(I64, 2))
    number = b.zext(b.extract_element(pair, I32(1)), I64)
    room = b.variable(b.bitcast(wide, vector(F64, 2)))
    real = b.load(room, typ=vector(F64, 2))
    real = b.fmul(b.fadd(real, vector(F64, 2).splat(0.1)), b.fsub(real, real))
    b.store(real, room)
    b.call("llvm.prefetch.p0", VOID, [place, I32(0), I32(3), I32(1)])
    again = b.ptrtoint(b.inttoptr(total, POINTER), I64)
    entry, loop, after = b.block, f.append_basic_block("loop"), f.append_basic_block("after")
    b.branch(loop)
    b.position_at_end(loop)
    turn = b.phi(I64)
    turn.add_incoming(again, entry)
    turn.add_incoming(number, loop)
    b.repeat(b.icmp_unsigned("!=", turn, y), loop, after)
    b.position_at_end(after)
    with b.if_then(b.icmp_signed(">=", turn, I64(0))):
        b.ret(turn)
    with b.if_else(b.icmp_signed("==", x, y)) as (same, other):
        with same:
            b.store(I32(1), place)
        with other:
            b.ret(y)
    b.ret(x)
    text = parsed(f)
    assert "alloca <2 x double>" in text and "llvm.loop.unroll.disable" in text
    assert "ret i64" in text and text.count("define") == 1


@pytest.mark.parametrize("kind, bits", [(F32, np.float32), (F64, np.float64)])
def test_constants_are_exact(kind: object, bits: type) -> None:
    """A function that returns the sum of a constant and zero, run by LLVM."""
    rng = np.random.default_rng(7)
    for value in (*rng.standard_normal(20), 0.1, -0.0, 1e-40, 2.0**-149, float("inf"), 1.0 / 3):
        f = Function("constant", VOID, [POINTER])
        b = Builder(f.append_basic_block("entry"))
        b.store(kind(value), f.args[0])  # type: ignore[operator]
        b.ret_void()
        text = parsed(f)
        found = re.search(r"store (?:float|double) (\S+),", text)
        assert found is not None
        given = found[1]
        read = (
            np.frombuffer(bytes.fromhex(given[2:])[::-1], np.float64)[0]
            if given.startswith("0x")
            else float(given)
        )
        assert bits(read).tobytes() == bits(value).tobytes()


def test_what_adds_nothing_is_not_written() -> None:
    f = Function("nothing", I64, [POINTER, I64])
    b = Builder(f.append_basic_block("entry"))
    place, x = f.args
    assert b.add(x, I64(0)) is x and b.sub(x, I64(0)) is x and b.mul(x, I64(1)) is x
    assert b.mul(x, I64(0)).text == "0" and b.gep(place, I64(0), source_etype=F32) is place
    assert not b.block.lines

"""The sums of a register tile stay in registers: the loops of its assembly say so."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any

import llvmlite.binding as llvm
import pytest

from graphflow import flags
from graphflow.codegen.compile import as_written, few_passes
from graphflow.codegen.contraction import dots, lanes, pairs, tiles
from graphflow.codegen.contraction.instructions import Function
from graphflow.codegen.contraction.tiling import (
    Tiling,
    dots_tile,
    neighbours,
    pairs_tile,
    sum_lanes,
    tiling,
)
from graphflow.codegen.target import Target, target_machine

X86 = "x86_64-unknown-linux-gnu"
TARGETS = {
    "avx512": Target(X86, "znver4", "+avx512f,+avx512vl"),
    "avx2": Target(X86, "haswell", "+avx2,+fma"),
    "sse": Target(X86, "nehalem", ""),
    "neon": Target("aarch64-unknown-linux-gnu", "neoverse-n1", ""),
    "apple": Target("arm64-apple-macosx11.0", "apple-m1", ""),
}
STACK = re.compile(r"\(%rsp\)|\[sp\b")
VECTOR = re.compile(r"%[xyz]mm|\b[qv]\d+\b")


def loops(assembly: str) -> list[list[str]]:
    """The blocks that end with a jump to their own beginning."""
    found = []
    for block in re.split(r"\n(?=\.?L\w+:)", assembly):
        label, *lines = block.splitlines()
        name = label.split(":")[0]
        ends = [n for n, line in enumerate(lines) if re.search(rf"\s{re.escape(name)}$", line)]
        if ends:
            found.append(lines[: ends[0] + 1])
    return found


def building_for(target: Target) -> AbstractContextManager[None]:
    """Where bodies are written for ``target``."""
    return flags.override(cpu_features=f"{target.triple}:{target.cpu}:{target.features}")


@as_written
def assembly_of(body: Function, target: Target) -> str:
    """What LLVM makes of a body for a processor, not of this machine perhaps."""
    machine = target_machine(target)
    parsed = llvm.parse_assembly(str(body))
    parsed.triple, parsed.data_layout = target.triple, str(machine.target_data)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(3))
    few_passes().run(parsed, builder)
    return str(machine.emit_assembly(parsed))


def loops_of(body: Any, element: str, name: str) -> tuple[list[list[str]], Tiling]:
    """Lines of the loops of a whole tile's body, and the tile."""
    target = TARGETS[name]
    tile = tiling(target, 4 if element == "f32" else 8)
    with building_for(target):
        function = body(element, tile.height, tile.vectors, tile.lanes)
    return loops(assembly_of(function, target)), tile


@pytest.mark.parametrize("body", [tiles.tile_body, tiles.tile_at_body, lanes.lanes_at_body])
@pytest.mark.parametrize("element", ["f32", "f64"])
@pytest.mark.parametrize("name", TARGETS)
def test_sums_stay_in_registers(body: Any, element: str, name: str) -> None:
    found, _ = loops_of(body, element, name)
    assert found, "the test does not see the loop"
    for lines in found:
        spilled = [line for line in lines if STACK.search(line) and VECTOR.search(line)]
        assert not spilled, f"{len(spilled)} of {len(lines)} lines: {spilled[:4]}"


@pytest.mark.parametrize("body", [tiles.tile_body, tiles.tile_at_body])
@pytest.mark.parametrize("element", ["f32", "f64"])
@pytest.mark.parametrize("name", ["neon", "apple"])
def test_arm_multiplies_by_a_lane_of_what_it_loads(body: Any, element: str, name: str) -> None:
    """An element of ``a`` is loaded by an index, and takes no instruction to fill a vector."""
    found, tile = loops_of(body, element, name)
    (loop,) = (lines for lines in found if "fmla" in "".join(lines))
    lane = rf"^\s*fmla.*\bv\d+\.{'s' if element == 'f32' else 'd'}\[0\]|^\s*fmla.*\[0\]$"
    assert sum(bool(re.search(lane, line)) for line in loop) == tile.height * tile.vectors
    loads = [line for line in loop if re.match(r"\s*ld", line)]
    pairs = sum(bool(re.match(r"\s*ldp\s+q", line)) for line in loop)
    indices = body is tiles.tile_at_body  # where steps lie
    assert pairs == tile.vectors // 2 and len(loads) == tile.height + pairs + indices
    assert not [line for line in loop if re.match(r"\s*(dup|ld1r|mov)\b", line)]


@pytest.mark.parametrize("body", [tiles.tile_body, tiles.tile_at_body])
@pytest.mark.parametrize("element", ["f32", "f64"])
def test_a_tall_tile_stores_rows_while_it_multiplies(body: Any, element: str) -> None:
    """And asks for a row of lines at each step, not for all of them before the first.

    A panel that may lie in memory is asked for as well.
    """
    target = TARGETS["avx512"]
    tile = tiling(target, 4 if element == "f32" else 8)
    text = assembly_of(body(element, tile.height, tile.vectors, tile.lanes), target)
    (loop,) = (lines for lines in loops(text) if any("vfmadd" in line for line in lines))
    panels = tile.vectors if body is tiles.tile_body else 0
    for kind, count in (("prefetchw", tile.vectors), ("prefetcht0", panels)):
        assert "".join(loop).count(kind) == count == text.count(kind)
    last = max(re.split(r"\n\.L\w+:", text), key=lambda block: block.count("vfmadd"))
    assert last.count("vfmadd") == tiles.LAST_STEPS * tile.height * tile.vectors
    assert not [line for line in last.splitlines() if STACK.search(line) and "zmm" in line]
    early = re.findall(r"\tvmovup[sd]\s+%zmm\d+, .*\(", last[: last.rindex("vfmadd")])
    assert len(early) == (tile.height - tiles.PART_ROWS) * tile.vectors


@pytest.mark.parametrize(
    "name, pitches", [("avx512", (1, 1)), ("avx512", (2, 1)), ("avx2", (1, 2))]
)
def test_what_several_rows_meet_is_read_once(name: str, pitches: tuple[int, int]) -> None:
    """A line of taps and rows side by side: sums and taps stay in registers meanwhile."""
    target, taps = TARGETS[name], 7
    tile = tiling(target, 4)
    function = lanes.lanes_run_body("f32", tile.height, (1, taps), pitches, tile.lanes)
    text = assembly_of(function, target)
    loop = next(lines for lines in loops(text) if any("vfmadd" in line for line in lines))
    met = {row * pitches[0] + tap * pitches[1] for row in range(tile.height) for tap in range(taps)}
    products = [line for line in loop if "vfmadd" in line]
    vectors = [line for line in loop if VECTOR.search(line) and "(" in line]
    assert len(products) == tile.height * taps
    assert len(vectors) == len(met) + taps  # some of them by a product that needs no other
    assert not [line for line in vectors if STACK.search(line)]


INTEGERS = {
    "vnni": (Target(X86, "znver4", "+avx512f,+avx512bw,+avx512vl,+avx512vnni"), "vpdpbusd"),
    "avx-vnni": (Target(X86, "alderlake", "+avx2,+fma,+avxvnni"), "vpdpbusd"),
    "avx512": (Target(X86, "skylake-avx512", "+avx512f,+avx512bw,+avx512vl"), "vpmaddwd"),
    "avx2": (TARGETS["avx2"], "vpmaddwd"),
    "sse": (TARGETS["sse"], "pmaddwd"),
    "neon": (Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+dotprod"), "sdot"),
    "apple": (TARGETS["apple"], "sdot"),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_multiplied_by_what_the_processor_has(name: str) -> None:
    """One instruction of the right kind a vector of sums, and sums of a tile in registers."""
    target, instruction = INTEGERS[name]
    height, width = pairs_tile(target)
    group = neighbours(target, "i8")
    with building_for(target):
        function = pairs.tile_of_integers("i8", group, height)
    loop = max(loops(assembly_of(function, target)), key=len)
    found = [line for line in loop if re.match(rf"\s*(\{{vex}}\s+)?{instruction}\b", line)]
    assert len(found) == height * width // sum_lanes(target)
    assert not [line for line in loop if STACK.search(line) and VECTOR.search(line)]
    rows, columns = dots_tile(target, single=False)
    with building_for(target):
        function = dots.dots_body("i8", rows, columns)
    text = assembly_of(function, target)
    assert instruction in text and (instruction in ("vpdpbusd", "sdot")) == (group == 4)
    hot = [line for lines in loops(text) if instruction in "".join(lines) for line in lines]
    assert hot and not [line for line in hot if STACK.search(line) and VECTOR.search(line)]

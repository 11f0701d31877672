"""Heavy loops are masked, loops of vector functions go several vectors at a time, and
nothing else in a module changes."""

import pytest

from graphflow.codegen import frontend
from graphflow.codegen.compile import assembly, compile_kernels
from graphflow.codegen.loop_hints import (
    CHAINED,
    CROWDED,
    HEAVY,
    HUGE,
    are_long,
    hint_loops,
    masked_from,
)
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import Target, chosen_target


def module(instructions: int, called: int = 0) -> str:
    """A function with one loop of ``instructions`` that also calls one of ``called``."""
    rows = ["  %x = add i64 %a, 1"] * instructions
    rows += ['  %y = call float @"vm.f"(float %b)'] * (called > 0)
    loop = ["head:", "  br i1 %c, label %body, label %exit", "body:", *rows]
    helper = ['define internal float @"vm.f"(float %a0) {', *["  %z = fneg float %a0"] * called]
    return "\n".join(
        ["define void @k() {", "entry:", '  br label %"head"', *loop, '  br label %"head"', "exit:"]
        + ["  ret void", "}", *helper, "}"]
    )


@pytest.mark.parametrize("sizes", [(HEAVY, 0), (10, HEAVY)])
def test_a_heavy_loop_is_marked_once(sizes: tuple[int, int]) -> None:
    text = module(*sizes)
    hinted = hint_loops(text, masked=HEAVY).splitlines()
    assert sum("!llvm.loop !900010" in line for line in hinted) == 1
    assert hinted[-1] == '!900000 = !{ !"llvm.loop.vectorize.predicate.enable", i1 true }'
    assert [line.split(", !llvm.loop")[0] for line in hinted[:-2]] == text.splitlines()
    if not sizes[1]:
        assert hint_loops(text, masked=None) == text


@pytest.mark.parametrize(("called", "count"), [(CHAINED, 4), (CROWDED - 1, 4), (CROWDED, 2)])
def test_a_loop_of_vector_functions_takes_vectors_side_by_side(called: int, count: int) -> None:
    hinted = hint_loops(module(20, called), masked=HEAVY).splitlines()
    assert hinted[-1].endswith(f'= !{{ !"llvm.loop.interleave.count", i32 {count} }}')


def test_a_light_loop_is_left_alone() -> None:
    text = module(HEAVY - 20, CHAINED - 1)
    assert hint_loops(text, masked=HEAVY) == text


def test_only_the_innermost_loop_takes_vectors_side_by_side() -> None:
    inner = module(20, CHAINED).splitlines()
    head, rest = inner.index("head:"), inner.index("exit:")
    outer = [*inner[:head], "outer:", '  br label %"head"', *inner[head:rest]]
    text = "\n".join([*outer, "exit:", '  br label %"outer"', *inner[rest + 1 :]])
    marked = [
        line for line in hint_loops(text, masked=HEAVY).splitlines() if "!llvm.loop !" in line
    ]
    assert marked == ['  br label %"head", !llvm.loop !900010']


def test_vectors_that_are_long_already_do_not_go_side_by_side() -> None:
    text = module(20, CHAINED)
    assert hint_loops(text, masked=None, long=True) == text != hint_loops(text, masked=None)
    arm = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "")
    old = Target("x86_64-unknown-linux-gnu", "haswell", "+avx2")
    bytes_, floats = "  store i8 %x, ptr %y", "  store float %x, ptr %y"
    assert are_long(arm, bytes_)
    assert not are_long(arm, floats) and not are_long(old, bytes_)


def test_a_quotient_in_the_loop_does_not_hide_it() -> None:
    if "avx2" not in chosen_target().enabled:
        pytest.skip("counts instructions of AVX2")
    text = (
        "from graphflow.codegen.prelude import kernel, pointer_f32, share, f32, vm\n\n\n@kernel\n"
        "def quotient(args, tid, nth):\n    a = pointer_f32(args, 0)\n"
        "    begin, end = share(args[1], tid, nth)\n    for i in range(begin, end):\n"
        "        x = vm.exp(a[i])\n        a[i] = x / (x + f32(1.0))\n"
    )
    code = assembly(KernelSource("quotient", text)).splitlines()
    assert sum("vdivps" in line and ("ymm" in line or "zmm" in line) for line in code) >= 4


def test_loops_are_masked_where_masks_are_cheap_or_the_loop_is_huge() -> None:
    narrow, wide = "  %1 = load i8, ptr %p", "  %1 = load float, ptr %p"
    old, small = (Target("x86_64", "x86-64", f) for f in ("+sse4.2", "+sse4.2,+avx,+avx2"))
    large = Target("x86_64", "x86-64", "+avx2,+avx512f,+avx512bw,+avx512vl")
    answers = [masked_from(target, t) for target in (old, small, large) for t in (narrow, wide)]
    assert answers == [None, None, None, HUGE, HEAVY, HEAVY]


def test_masking_makes_less_code(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = "\n".join(f"        x = vm.tanh(x + f32({k}))" for k in range(12))
    text = (
        "from graphflow.codegen.prelude import kernel, pointer_f32, share, f32, vm\n\n\n@kernel\n"
        "def heavy(args, tid, nth):\n    a = pointer_f32(args, 0)\n"
        "    begin, end = share(args[1], tid, nth)\n    for i in range(begin, end):\n"
        f"        x = a[i]\n{steps}\n        a[i] = x\n"
    )
    kernel = KernelSource("heavy", text)
    if masked_from(chosen_target(), "") is None:
        pytest.skip("this processor has no masked vectors")
    monkeypatch.setattr(frontend, "masked_from", lambda target, text, aside: HEAVY)
    masked = len(compile_kernels([kernel]).objects["heavy"])
    monkeypatch.setattr(frontend, "masked_from", lambda target, text, aside: None)
    assert masked < 0.7 * len(compile_kernels([kernel]).objects["heavy"])

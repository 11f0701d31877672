"""Heavy loops are masked, light ones are not, and nothing else in a module changes."""

import pytest

from graphflow.codegen import frontend, loop_hints
from graphflow.codegen.compile import compile_kernels
from graphflow.codegen.loop_hints import can_mask, mask_heavy_loops
from graphflow.codegen.schedule import KernelSource
from graphflow.codegen.target import Target, host_target


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


@pytest.mark.parametrize("sizes", [(loop_hints.HEAVY, 0), (10, loop_hints.HEAVY)])
def test_a_heavy_loop_is_marked_once(sizes: tuple[int, int]) -> None:
    text = module(*sizes)
    hinted = mask_heavy_loops(text).splitlines()
    assert sum("!llvm.loop !900001" in line for line in hinted) == 1
    assert hinted[-1] == '!900000 = !{ !"llvm.loop.vectorize.predicate.enable", i1 true }'
    assert [line.split(", !llvm.loop")[0] for line in hinted[:-2]] == text.splitlines()


def test_a_light_loop_is_left_alone() -> None:
    text = module(loop_hints.HEAVY - 20, 10)
    assert mask_heavy_loops(text) == text


def test_narrow_elements_need_more_than_avx2() -> None:
    narrow, wide = "  %1 = load i8, ptr %p", "  %1 = load float, ptr %p"
    old, small = (Target("x86_64", "x86-64", f) for f in ("+sse4.2", "+sse4.2,+avx,+avx2"))
    large = Target("x86_64", "x86-64", "+avx2,+avx512f,+avx512bw,+avx512vl")
    answers = [can_mask(target, text) for target in (old, small, large) for text in (narrow, wide)]
    assert answers == [False, False, False, True, True, True]


def test_masking_makes_less_code(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = "\n".join(f"        x = vm.tanh(x + f32({k}))" for k in range(12))
    text = (
        "from graphflow.codegen.prelude import kernel, pointer_f32, share, f32, vm\n\n\n@kernel\n"
        "def heavy(args, tid, nth):\n    a = pointer_f32(args, 0)\n"
        "    begin, end = share(args[1], tid, nth)\n    for i in range(begin, end):\n"
        f"        x = a[i]\n{steps}\n        a[i] = x\n"
    )
    kernel = KernelSource("heavy", text)
    if not can_mask(host_target(), ""):
        pytest.skip("this processor has no masked vectors")
    masked = len(compile_kernels([kernel]).objects["heavy"])
    monkeypatch.setattr(frontend, "can_mask", lambda target, text: False)
    assert masked < 0.7 * len(compile_kernels([kernel]).objects["heavy"])

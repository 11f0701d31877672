"""Functions and conversions that a GPU has instructions for, in the PTX of kernels.

Needs numba-cuda, but no GPU and no driver; run by ``make test-ptx``.
"""

from __future__ import annotations

import pytest

from graphflow.codegen.cuda.compile import ptx
from graphflow.codegen.cuda.intrinsics import NATIVE
from graphflow.codegen.schedule import KernelSource, Launch

SOURCE = """
from graphflow.codegen.cuda.prelude import cuda, kernel, vm


@kernel
def ew_{name}(a, out):
    i = cuda.grid(1)
    out[i] = vm.{name}(a[i])
"""


def text_of(name: str, elements: tuple[str, str], capability: tuple[int, int] = (9, 0)) -> str:
    launch = Launch(elements, 0, 256, False, 1)
    source = SOURCE.format(name=name).lstrip()
    return ptx(KernelSource(f"ew_{name}", source, launch=launch), capability)


@pytest.mark.parametrize("name", NATIVE)
def test_functions_of_f32_use_the_units_of_a_gpu(name: str) -> None:
    text = text_of(name, ("f32", "f32"))
    by_unit = ("ex2.approx", "lg2.approx", "rcp.approx")
    assert any(unit in text for unit in by_unit) or name.startswith("log"), text
    assert ".local" not in text
    if name != "exp2":  # in doubles they stay our formulas
        assert not any(unit in text_of(name, ("f64", "f64")) for unit in by_unit)


@pytest.mark.parametrize(
    ("name", "elements", "capability", "instruction"),
    [
        ("f16_to_f32", ("u16", "f32"), (7, 5), "cvt.f32.f16"),
        ("f32_to_f16", ("f32", "u16"), (7, 5), "cvt.rn.f16.f32"),
        ("f32_to_bf16", ("f32", "u16"), (9, 0), "cvt.rn.bf16.f32"),
    ],
)
def test_conversions_are_instructions(
    name: str, elements: tuple[str, str], capability: tuple[int, int], instruction: str
) -> None:
    assert instruction in text_of(name, elements, capability)


def test_older_gpus_round_to_bfloat16_by_the_formula() -> None:
    text = text_of("f32_to_bf16", ("f32", "u16"), (7, 5))
    assert "bf16.f32" not in text and "add" in text


def test_the_vocabulary_is_that_of_the_formulas() -> None:
    from graphflow.codegen.vector_math import FUNCTIONS

    assert set(NATIVE) <= set(FUNCTIONS)

"""Every primitive that has a kernel, lowered alone, against its NumPy reference."""

from __future__ import annotations

import numpy as np
import pytest
from lowering import evaluate
from op_cases import Case, all_cases

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.ir.op import Kind

LOWERED = {
    Kind.ELEMENTWISE, Kind.GENERATOR, Kind.VIEW, Kind.GATHER, Kind.SCATTER, Kind.REDUCTION,
    Kind.LINE,
}  # fmt: skip


def real(case: Case) -> bool:
    """Kernels know real numbers: complex ones are split before (test_complex.py)."""
    nodes = case.graph().outputs[0], *case.graph().inputs
    return not any(node.dtype.is_complex for node in nodes)


CASES = [
    case
    for case in all_cases()
    if case.op.kind in LOWERED and case.op.decompose is None and real(case)
]


def agrees(case: Case, threads: int = 1, compiled: bool = False) -> None:
    """The kernel's result is the reference's, within the record's tolerance."""
    body = case.graph()
    arrays = [np.array(a, order="C") for a in case.arrays]
    with np.errstate(all="ignore"):
        (want,) = body.run(*arrays)
    (got,), calls, memory = evaluate(body, arrays, threads, compiled)
    assert got.dtype == want.dtype and got.shape == want.shape
    text = "\n".join(call.kernel.source for call in calls)
    short = case.op.infer([n.tensor_type for n in body.inputs], dict(case.attrs)).dtype.short
    bound = {"f16": 2e-3, "bf16": 2e-2}.get(short) or case.op.tests.tolerance.get(short, 1e-6)
    if got.dtype.kind in "iub":
        assert np.array_equal(got, want), text
    else:
        wide = [np.asarray(x, np.float64) for x in (got, want)]
        np.testing.assert_allclose(*wide, rtol=2 * bound, atol=2 * bound, err_msg=text)
    assert memory.error[0] == 0


@pytest.mark.parametrize("name", sorted({case.op.name for case in CASES}))
def test_each_operation_agrees_with_its_reference(name: str) -> None:
    for case in CASES:
        if case.op.name == name:
            print(case.label)
            agrees(case)

"""A primitive's record is complete, or this test names every field that is missing."""

import inspect

import numpy as np
import pytest

from graphflow.errors import GraphError
from graphflow.ir.op import (
    NON_DIFFERENTIABLE,
    Kind,
    Line,
    NonDifferentiable,
    OpDef,
    OpTests,
    all_ops,
    lookup,
    register,
)
from graphflow.ir.types import dtype_named
from graphflow.records import replace

PLANNED = """
    input state constant
    neg abs exp log log1p expm1 sqrt rsqrt sin cos tanh sigmoid erf relu floor ceil round sign
    reciprocal logical_not isnan cast stop_gradient copy
    add sub mul div pow maximum minimum remainder floor_divide atan2 eq ne lt le gt ge
    logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor shift_left shift_right
    where iota random_bits
    reshape permute expand slice flip pad concatenate gather take scatter_add slice_update
    window window_add window_set diagonal diagonal_set strided
    scatter scatter_mul scatter_max scatter_min
    reduce_sum reduce_max reduce_min reduce_prod argmax argmin matmul
    cond while_loop scan get fused
""".split()

MAPPED = (Kind.VIEW, Kind.GATHER, Kind.SCATTER, Kind.GENERATOR)
SCALAR = (Kind.ELEMENTWISE, Kind.GENERATOR)
UNTESTED = (Kind.LEAF, Kind.CONTROL, Kind.OPAQUE)  # by test_interp.py, test_linalg.py instead


def missing_fields(op: OpDef) -> list[str]:
    """Every field that ``op``'s kind asks for and the record leaves out."""
    missing = []
    if len(op.summary) < 5 or not op.summary.endswith((".", "…")):
        missing.append("summary")
    if not callable(op.infer):
        missing.append("infer")
    if not callable(op.reference):
        missing.append("reference")
    if op.kind in SCALAR and op.decompose is None:
        missing += missing_templates(op)
    if op.kind in MAPPED and op.index is None:
        missing.append("index")
    if op.kind is Kind.REDUCTION and op.reduction is None:
        missing.append("reduction")
    if (
        op.kind is Kind.LINE
        and op.decompose is None
        and (op.line is None or (op.line is Line.SCAN and op.reduction is None))
    ):
        missing.append("line")
    if op.kind in (Kind.GATHER, Kind.SCATTER) and has_index_operand(op) and not op.fallible:
        missing.append("fallible")
    return missing + missing_gradient(op) + missing_tests(op)


def has_index_operand(op: OpDef) -> bool:
    """True when an operand holds positions: then the samples give it as whole numbers."""
    operands = [x for sample in op.tests.samples for x in sample.inputs]
    return any(isinstance(x, np.ndarray) and x.dtype.kind in "iu" for x in operands)


def missing_templates(op: OpDef) -> list[str]:
    """Element types that are tested but have no kernel template."""
    if op.scalar is None:
        return ["scalar"]
    if isinstance(op.scalar, str):
        return []
    known = {*op.scalar}
    return [
        f"scalar[{short}]"
        for short in op.tests.dtypes
        if op.parts is None or not dtype_named(short).is_complex
        if not {short, dtype_named(short).kind} & known
    ]


def missing_gradient(op: OpDef) -> list[str]:
    """A rule an operand, one that takes the position, or NON_DIFFERENTIABLE."""
    if isinstance(op.vjp, NonDifferentiable) or op.kind is Kind.LEAF:
        return []
    if callable(op.vjp):
        return [] if len(inspect.signature(op.vjp).parameters) == 4 else ["vjp"]
    rules = [r for r in op.vjp if r is not None]
    well_formed = all(callable(r) and len(inspect.signature(r).parameters) == 3 for r in rules)
    return [] if op.vjp and rules and well_formed else ["vjp"]


def missing_tests(op: OpDef) -> list[str]:
    """Facts without which the op matrix would test nothing."""
    if op.kind in UNTESTED:
        return []
    missing = []
    if not op.tests.dtypes:
        missing.append("tests.dtypes")
    if op.kind is not Kind.ELEMENTWISE and not op.tests.samples:
        missing.append("tests.samples")
    if any(s in ("f32", "f64") and s not in op.tests.tolerance for s in op.tests.dtypes):
        missing.append("tests.tolerance")
    domain = np.array(op.tests.domain)
    if domain.shape[-1:] != (2,) or not (domain[..., 0] < domain[..., 1]).all():
        missing.append("tests.domain")
    if op.tests.gradient is isinstance(op.vjp, NonDifferentiable):
        missing.append("tests.gradient")
    return missing


@pytest.mark.parametrize("op", all_ops(), ids=lambda op: op.name)
def test_no_field_is_missing(op: OpDef) -> None:
    assert missing_fields(op) == [], f"the record of {op.name} leaves out {missing_fields(op)}"


def test_every_planned_primitive_exists() -> None:
    assert [name for name in PLANNED if name not in {op.name for op in all_ops()}] == []


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("tanh", {"summary": ""}, ["summary"]),
        ("tanh", {"scalar": None}, ["scalar"]),
        ("tanh", {"scalar": {"f32": "vm.tanh({0})"}}, ["scalar[f64]"]),
        ("tanh", {"vjp": ()}, ["vjp"]),
        ("tanh", {"vjp": (lambda b, n: n,)}, ["vjp"]),
        ("tanh", {"vjp": NON_DIFFERENTIABLE}, ["tests.gradient"]),
        ("tanh", {"infer": None, "reference": None}, ["infer", "reference"]),
        ("tanh", {"tests": OpTests(dtypes=())}, ["tests.dtypes"]),
        ("tanh", {"tests": OpTests(tolerance={"f32": 1e-6})}, ["tests.tolerance"]),
        ("tanh", {"tests": OpTests(domain=(2.0, 1.0))}, ["tests.domain"]),
        ("permute", {"index": None}, ["index"]),
        ("permute", {"tests": OpTests()}, ["tests.samples"]),
        ("reduce_sum", {"reduction": None}, ["reduction"]),
        ("cumsum", {"reduction": None}, ["line"]),
        ("argsort", {"line": None}, ["line"]),
        ("take", {"fallible": False, "index": None}, ["index", "fallible"]),
    ],
)
def test_what_is_left_out_is_named(name: str, changes: dict, named: list[str]) -> None:
    assert missing_fields(replace(lookup(name), **changes)) == named


def test_required_fields_are_named_by_the_constructor() -> None:
    with pytest.raises(TypeError, match=r"summary.*infer.*reference.*vjp.*tests"):
        OpDef(name="nothing", kind=Kind.ELEMENTWISE)  # type: ignore[call-arg]


def test_two_records_cannot_have_one_name() -> None:
    with pytest.raises(GraphError, match="'tanh' is already registered"):
        register(lookup("tanh"))


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(GraphError, match="did you mean tanh"):
        lookup("tahn")

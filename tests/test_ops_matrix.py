"""Every primitive × shapes × dtypes: reference, kernel template, index map, type rule.

The cases come from the records (``op_cases.py``); what is right comes
from elsewhere: plain Python on single numbers, the reference in double, and
the affine maps, which are followed element by element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.special
from op_cases import Case, all_cases, random_array, seed_of, strided
from scalar_oracles import ORACLES, shift_left, shift_right

from graphflow.codegen import prelude
from graphflow.errors import GraphFlowError
from graphflow.ir.affine import Affine, Piece
from graphflow.ir.dims import Dim, evaluate_dim, symbol
from graphflow.ir.interp import interpret
from graphflow.ir.op import GATHERED, POSITION, Kind, all_ops, lookup
from graphflow.ir.types import TensorType, TupleType, from_numpy_dtype

CASES = all_cases()
MAPPED = (Kind.VIEW, Kind.GATHER)
OPS = [op.name for op in all_ops() if op.tests.dtypes]


def by_label(found: Sequence[Case]) -> Any:
    return pytest.mark.parametrize("case", found, ids=[c.label for c in found])


def run(case: Case, precision: str | None = None) -> np.ndarray:
    (result,) = interpret(case.graph(), case.arrays, precision=precision).outputs
    return result


def assert_close(case: Case, found: np.ndarray, expected: Any) -> None:
    """Equal in shape and exactly, or for floats within the record's tolerance."""
    expected = np.asarray(expected)
    where = f"{case.label} (seed {seed_of(case.label)})"
    assert found.shape == expected.shape, where
    if found.dtype.kind in "biu":
        np.testing.assert_array_equal(found, expected, err_msg=where)
        return
    if found.dtype.kind == "c":
        found, expected = (np.stack([a.real, a.imag], -1) for a in (found, expected))
    tolerance = case.op.tests.tolerance.get(case.dtype.short, 1e-2)
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1e-30)
    atol = (
        tolerance * scale
        if case.op.kind in (Kind.REDUCTION, Kind.LINE, Kind.CONTRACTION)
        else 1e-30
    )
    np.testing.assert_allclose(
        found.astype(np.float64), expected.astype(np.float64), tolerance, atol, err_msg=where
    )


# ---- references ----------------------------------------------------------------------


def wrapped(value: Any, dtype: np.dtype[Any]) -> Any:
    """A Python integer as ``dtype`` stores it."""
    if dtype.kind not in "iu":
        return value
    bits = 8 * dtype.itemsize
    value = int(value) & ((1 << bits) - 1)
    return value - (1 << bits) if dtype.kind == "i" and value >> (bits - 1) else value


def oracle(case: Case) -> Callable[..., Any] | None:
    width = 8 * case.dtype.itemsize
    if case.op.name == "shift_left":
        return lambda a, b: shift_left(a, b, width)
    if case.op.name == "shift_right":
        return lambda a, b: shift_right(a, b, width)
    if case.op.name == "zeta":
        return lambda x: float(scipy.special.zeta(case.attrs["s"], x))
    return ORACLES.get(case.op.name)


ELEMENTWISE = [c for c in CASES if c.op.kind is Kind.ELEMENTWISE and c.op.name != "cast"]


@by_label(ELEMENTWISE)
def test_elementwise_reference_against_plain_python(case: Case) -> None:
    function = oracle(case)
    assert function is not None, f"tests/scalar_oracles.py says nothing about {case.op.name}"
    found = run(case)
    operands = np.broadcast_arrays(*case.arrays) if case.arrays else []
    expected = [
        wrapped(function(*(x.item() for x in row)), found.dtype)
        for row in zip(*(a.reshape(-1) for a in operands))
    ]
    wide = {"f": np.float64, "c": np.complex128}.get(found.dtype.kind, found.dtype)
    want = np.array(expected, dtype=wide)
    assert_close(case, found, want.reshape(found.shape))


@by_label([c for c in CASES if c.dtype.is_floating_point and c.op.name != "cast"])
def test_reference_against_double_precision(case: Case) -> None:
    assert_close(case, run(case), run(case, "f64"))


@by_label(CASES)
def test_strided_operands_change_nothing(case: Case) -> None:
    apart = Case(case.label, case.op, case.dtype, tuple(map(strided, case.arrays)), case.attrs)
    assert_close(case, run(apart), run(case))  # NumPy's strided loops differ in the last bit


@by_label([c for c in CASES if c.op.name == "cast"])
def test_cast_converts_each_number(case: Case) -> None:
    found = run(case)
    target = case.attrs["dtype"]
    assert found.dtype == target.numpy
    for x, y in zip(case.arrays[0].reshape(-1), found.reshape(-1)):
        if target.kind == "bool":
            assert bool(y) == (float(x) != 0)
        elif target.is_floating_point:
            assert float(y) == float(np.array(float(x)).astype(target.numpy))
        else:
            assert int(y) == wrapped(math.trunc(float(x)), found.dtype)


# ---- kernel templates ----------------------------------------------------------------

VOCABULARY: Mapping[str, Any] = {**vars(prelude), "bool": bool}
TEMPLATED = [c for c in CASES if c.op.scalar and c.op.kind is Kind.ELEMENTWISE]


def scalar_of(case: Case) -> Callable[..., Any]:
    """The kernel template of the case, as a Python function of NumPy scalars."""
    text = case.op.scalar_for(from_numpy_dtype(case.arrays[-1].dtype))
    names = [f"x{i}" for i in range(len(case.arrays))]
    code = f"lambda {', '.join(names)}: {text.format(*names, **case.attrs)}"
    return eval(code, dict(VOCABULARY))  # type: ignore[no-any-return]


@by_label([c for c in TEMPLATED if c.dtype.short not in ("f16", "bf16")])
def test_kernel_template_says_the_same_as_the_reference(case: Case) -> None:
    function = scalar_of(case)
    found = run(case)
    operands = np.broadcast_arrays(*case.arrays)
    with np.errstate(all="ignore"):
        computed = [function(*row) for row in zip(*(a.reshape(-1) for a in operands))]
    if case.attrs.get("dtype") is not None and case.attrs["dtype"].is_floating_point:
        computed = [np.asarray(v).astype(found.dtype) for v in computed]
    for value in computed:
        if found.dtype.kind in "iu":
            assert np.asarray(value).dtype == found.dtype, f"{case.label}: {type(value)}"
    want = np.array(computed, dtype=found.dtype).reshape(found.shape)
    if found.dtype.kind == "f":
        assert_close(case, found, want.astype(np.float64))
    else:
        np.testing.assert_array_equal(found, want, err_msg=case.label)


# ---- index maps ----------------------------------------------------------------------


def at(index: Sequence[Affine], point: Mapping[str, int]) -> tuple[int, ...]:
    """An affine index at a point."""
    return tuple(
        int(part.offset) + sum(int(c) * point[name] for name, c in part.terms) for part in index
    )


def pieces(case: Case, rank: int) -> Sequence[Piece] | None:
    assert case.op.index is not None, f"{case.op.name} has no index map"
    types = [TensorType(from_numpy_dtype(a.dtype), a.shape) for a in case.arrays]
    variables = tuple(Affine.variable(f"i{k}") for k in range(rank))
    return case.op.index(types, case.attrs, variables) or None


def view_element(case: Case, found: Sequence[Piece], point: dict[str, int]) -> Any:
    for piece in found:
        holds = all(int(c.low) <= at([c.index], point)[0] < int(c.high) for c in piece.conditions)
        if holds:
            return case.arrays[piece.operand][at(piece.index, point)]
    assert case.op.fill is not None, f"no piece of {case.op.name} covers {point}"
    return case.op.fill(case.attrs, case.dtype)


@by_label([c for c in CASES if c.op.kind in MAPPED])
def test_index_maps_lead_to_the_elements_of_the_reference(case: Case) -> None:
    found = run(case)
    maps = pieces(case, found.ndim)
    if maps is None:
        if case.op.name in ("view_as_real", "view_as_complex"):
            return
        assert case.op.name == "reshape"
        assert [d for d in case.arrays[0].shape if d != 1] != [d for d in found.shape if d != 1]
        return
    for position in np.ndindex(found.shape):
        point = {f"i{k}": i for k, i in enumerate(position)}
        if case.op.kind is Kind.GATHER:
            pointer, data = maps
            point[GATHERED] = int(case.arrays[pointer.operand][at(pointer.index, point)])
            expected = case.arrays[data.operand][at(data.index, point)]
        else:
            expected = view_element(case, maps, point)
        np.testing.assert_array_equal(found[position], expected, err_msg=case.label)


@by_label([c for c in CASES if c.op.kind is Kind.SCATTER])
def test_scatter_maps_lead_to_where_the_reference_writes(case: Case) -> None:
    source = case.arrays[-1]
    maps = pieces(case, source.ndim)
    assert maps is not None
    expected = case.arrays[0].astype(np.float64 if case.dtype.is_floating_point else None)
    combine = case.op.reduction.combine if case.op.reduction is not None else "{1}"
    fold = eval(f"lambda old, new: {combine.format('old', 'new')}", dict(VOCABULARY))
    for position in np.ndindex(source.shape):
        point = {f"i{k}": i for k, i in enumerate(position)}
        if len(maps) == 2:
            point[GATHERED] = int(case.arrays[maps[0].operand][at(maps[0].index, point)])
        place = at(maps[-1].index, point)
        expected[place] = fold(expected[place], source[position])
    assert_close(case, run(case), expected)


@by_label([c for c in CASES if c.op.kind is Kind.GENERATOR])
def test_generators_by_template_and_index(case: Case) -> None:
    found = run(case)
    maps = pieces(case, found.ndim) or ()
    names = [f"x{i}" for i in range(len(maps))]
    text = case.op.scalar_for(from_numpy_dtype(found.dtype)).format(*names, **case.attrs)
    function = eval(f"lambda {', '.join(names)}: {text}", dict(VOCABULARY))
    for position in np.ndindex(found.shape):
        point = {f"i{k}": i for k, i in enumerate(position)}
        arguments = [
            np.int64(at(m.index, point)[0])
            if m.operand == POSITION
            else case.arrays[m.operand][at(m.index, point)]
            for m in maps
        ]
        assert function(*arguments) == found[position], case.label


# ---- reductions ----------------------------------------------------------------------


@by_label([c for c in CASES if c.op.kind is Kind.REDUCTION])
def test_reductions_fold_by_identity_and_combine(case: Case) -> None:
    fold = case.op.reduction
    assert fold is not None
    found = run(case)
    (x,) = case.arrays
    axes = case.attrs["axes"] if "axes" in case.attrs else (case.attrs["axis"],)
    combine = eval(f"lambda a, b: {fold.combine.format('a', 'b')}", dict(VOCABULARY))
    count = math.prod(x.shape[axis] for axis in axes)
    rows = np.moveaxis(x, axes, range(len(axes))).reshape(count, *found.shape)
    expected = np.empty(found.shape, np.float64 if found.dtype.kind == "f" else found.dtype)
    wide = np.float64 if case.dtype.is_floating_point else x.dtype.type
    with np.errstate(all="ignore"):
        for place in np.ndindex(found.shape):
            held, winner = wide(fold.identity(case.dtype)), 0
            for i, row in enumerate(rows):
                value = wide(row[place])
                if not fold.position:
                    held = combine(held, value)
                elif combine(held, value):
                    held, winner = value, i
            expected[place] = winner if fold.position else held
    assert_close(case, found, expected)


# ---- views written through -----------------------------------------------------------


def shows_each_once(case: Case) -> bool:
    """True when no element of the operand is shown twice (as overlapping windows do)."""
    operand = case.arrays[0]
    numbers = np.arange(operand.size).reshape(operand.shape).astype(np.int64)
    if operand.dtype.kind == "c":
        numbers = np.asarray(numbers * (1 - 2j) + 0.25j)  # parts that are told apart
    shown = case.op.reference(numbers, **case.attrs)
    return bool(np.unique(shown).size == shown.size)


WRITABLE = [c for c in CASES if c.op.view_inverse is not None]


@by_label([c for c in WRITABLE if not shows_each_once(c)])
def test_writing_through_a_view_that_shows_an_element_twice_is_refused(case: Case) -> None:
    (parent,) = case.arrays
    new = np.zeros_like(case.op.reference(parent, **case.attrs))
    assert case.op.view_inverse is not None
    with pytest.raises(GraphFlowError, match="share one memory location"):
        case.op.view_inverse(None, parent, new, case.attrs)


@by_label([c for c in WRITABLE if shows_each_once(c)])
def test_writing_through_a_view_changes_what_it_shows_and_nothing_else(case: Case) -> None:
    (parent,) = case.arrays
    shown = case.op.reference(parent, **case.attrs)
    rng = np.random.default_rng(seed_of(case.label))
    new = random_array(rng, shown.shape, from_numpy_dtype(shown.dtype), (-3.0, 3.0))
    assert case.op.view_inverse is not None

    def emit(op: str, *values: np.ndarray, **attrs: Any) -> np.ndarray:
        if isinstance(attrs.get("dtype"), np.dtype):  # an array's, where a node has ours
            attrs["dtype"] = from_numpy_dtype(attrs["dtype"])
        return lookup(op).reference(*values, **attrs)  # type: ignore[no-any-return]

    written = case.op.view_inverse(emit, parent, new, case.attrs)
    expected = parent.copy()
    case.op.reference(expected, **case.attrs)[...] = new  # NumPy's own view
    np.testing.assert_array_equal(written, expected, err_msg=case.label)


# ---- type rules with symbols ---------------------------------------------------------

KNOWN = ("shape", "limits")  # attributes that hold extents


def symbolic(dim: int) -> Dim:
    """Extents above 1 as symbols, one a size."""
    return symbol(f"n{dim}") if dim > 1 else dim


def symbolic_attrs(case: Case) -> dict[str, Any]:
    attrs = dict(case.attrs)
    if "shape" in attrs:
        attrs["shape"] = tuple(map(symbolic, attrs["shape"]))
    if "limits" in attrs:
        extents = case.arrays[0].shape
        attrs["limits"] = tuple(
            symbolic(n) if n == extent else n for n, extent in zip(attrs["limits"], extents)
        )
    return attrs


def is_symbolisable(case: Case) -> bool:
    """A reshape that merges axes of other sizes, a diagonal, a step: no symbolic twin here."""
    if case.op.name in (
        "reshape",
        "random_bits",
        "diagonal",
        "diagonal_set",
        "strided",
        "view_as_complex",
        "pick",  # whose places are numbered
    ):
        return False
    return all(step == 1 for step in case.attrs.get("steps", ()))


@by_label([c for c in CASES if is_symbolisable(c) and c.dtype.short in ("f32", "i64")])
def test_type_rules_work_with_symbols(case: Case) -> None:
    types = [
        TensorType(from_numpy_dtype(a.dtype), tuple(map(symbolic, a.shape))) for a in case.arrays
    ]
    found = case.op.infer(types, symbolic_attrs(case))
    assert not isinstance(found, TupleType)
    sizes = {f"n{i}": i for i in range(50)}
    result = run(case)
    assert tuple(evaluate_dim(d, sizes) for d in found.shape) == result.shape
    assert found.dtype.numpy == result.dtype


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "expected"),
    [
        ("reshape", [("b", 4)], {"shape": ("4*b",)}, ("4*b",)),
        ("reshape", [("b", "s", 4)], {"shape": ("b*s", 4)}, ("b*s", 4)),
        ("concatenate", [("b", 2), ("s", 2), (3, 2)], {"axis": 0}, ("b+s+3", 2)),
        ("pad", [("b",)], {"low": (1,), "high": (2,), "value": 0}, ("b+3",)),
        ("slice", [("b",)], {"starts": (1,), "limits": ("b-1",), "steps": (1,)}, ("b-2",)),
        ("slice", [("b",)], {"starts": (0,), "limits": ("b",), "steps": (2,)}, ("-((-b)//2)",)),
        ("matmul", [("h", "b", 4), (4, "k")], {}, ("h", "b", "k")),
        ("take", [("v", 8), ("b", "s")], {"axis": 0}, ("b", "s", 8)),
        ("expand", [(1, 4)], {"shape": ("b", 4)}, ("b", 4)),
    ],
)
def test_symbolic_shapes(
    op: str, shapes: list[tuple[Any, ...]], attrs: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    from graphflow.ir.dims import parse_dim
    from graphflow.ir.types import float32, int64

    def dims(shape: tuple[Any, ...]) -> tuple[Dim, ...]:
        return tuple(parse_dim(d) if isinstance(d, str) else d for d in shape)

    types = [TensorType(float32, dims(s)) for s in shapes]
    if op == "take":
        types[1] = TensorType(int64, types[1].shape)
    given = {k: dims(v) if isinstance(v, tuple) else v for k, v in attrs.items()}
    found = lookup(op).infer(types, given)
    assert found.shape == dims(expected)  # type: ignore[union-attr]


def test_a_symbol_broadcasts_with_itself_and_one_only() -> None:
    add = lookup("add")
    from graphflow.ir.types import float32

    row = TensorType(float32, (symbol("b"), 4))
    assert add.infer([row, TensorType(float32, (1, 4))], {}) == row
    with pytest.raises(GraphFlowError, match=r"add\(f32\[b,4\], f32\[3,4\]\)"):
        add.infer([row, TensorType(float32, (3, 4))], {})

"""Simplification: every law holds for every value, and does what it says."""

import itertools
import math
import random

import numpy as np
import pytest
from graphs import Case, assert_same_array, assert_same_results, random_graph
from law_examples import EXAMPLES, LEAVES

import graphflow as gf
import graphflow.ir.ops
from graphflow.errors import GraphError
from graphflow.ir.build import NODES, constant, emit, input_node
from graphflow.ir.graph import Graph, Location
from graphflow.ir.interp import interpret
from graphflow.ir.node import Node
from graphflow.ir.pattern import Literal, Pattern, Variable, build, match, parse_pattern
from graphflow.ir.types import (
    DTYPES,
    DType,
    TensorType,
    bool_,
    float32,
    float64,
    int32,
    int64,
    uint32,
)
from graphflow.passes.laws import LAWS, Law, apply_laws
from graphflow.passes.rewrite import hits, rewrite
from graphflow.passes.simplify import Simplify
from graphflow.passes.view_laws import is_lossless

# ---- laws with a written replacement, on every pair of special values --------------------

FLOATS = [
    float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -2.75,
    1e-45, -1e-40, 3e38, -3e38, 16777217.0, 0.1,
]  # fmt: skip
INTEGERS = [0, 1, 2, 3, 7, 255, 2**31 - 1]
TOLERANCE = {"f32": 3e-7, "f64": 3e-16}


def special(dtype: DType) -> np.ndarray:
    """Values at which laws break."""
    if dtype.kind == "float":
        return np.array(FLOATS, dtype.numpy)
    if dtype.kind == "bool":
        return np.array([False, True])
    low, high = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
    both = [*INTEGERS, *(-i for i in INTEGERS), low, high]
    return np.array([i for i in both if low <= i <= high], dtype.numpy)


def instance(pattern: Pattern, dtype: DType, leaves: dict[str, Node]) -> Node:
    """A node the pattern matches, over inputs of ``dtype``; raises where there is none."""
    if isinstance(pattern, Variable):
        name = pattern.name if pattern.name != "_" else f"any{len(leaves)}"
        return leaves.setdefault(name, input_node(name, TensorType(dtype, (1000,))))
    if isinstance(pattern, Literal):
        if pattern.bits(dtype) is None:
            raise GraphError("no such literal")
        return constant(pattern.value, dtype)
    assert pattern.operands is not None
    dtypes = [dtype] * len(pattern.operands)
    if pattern.op == "where":
        dtypes[0] = bool_
    return emit(pattern.op, *[instance(p, d, leaves) for p, d in zip(pattern.operands, dtypes)])


def written() -> list[Law]:
    """Laws whose replacement is a pattern."""
    return [law for law in LAWS if isinstance(law.replacement, str)]


def cases_of(law: Law) -> list[tuple[Node, dict[str, Node]]]:
    found = []
    for dtype in (float32, float64, int32, int64, uint32, bool_):
        leaves: dict[str, Node] = {}
        try:
            found.append((instance(parse_pattern(law.pattern), dtype, leaves), leaves))
        except (GraphError, TypeError, RuntimeError):
            continue
    return found


@pytest.mark.parametrize("law", written(), ids=lambda law: law.pattern)
def test_a_law_holds_for_every_pair_of_special_values(law: Law) -> None:
    assert isinstance(law.replacement, str)
    tried = 0
    for node, leaves in cases_of(law):
        bound = match(parse_pattern(law.pattern), node)
        assert bound is not None
        result = build(parse_pattern(law.replacement), bound, node.dtype)
        if result.dtype is not node.dtype:
            continue  # apply_laws leaves these alone: not not 3 is 1
        tried += 1
        result = NODES.expand(result, shape=node.shape)
        values = [special(n.dtype) for n in leaves.values()]
        grid = [np.resize(v, 1000) for v in map(np.array, zip(*itertools.product(*values)))]
        grid = [g.astype(n.dtype.numpy) for g, n in zip(grid, leaves.values())]
        run = interpret(Graph(tuple(leaves.values()), (node, result)), grid)
        tolerance = TOLERANCE.get(node.dtype.short, 0) if law.rounding else 0
        assert_same_array(*run.outputs, tolerance=tolerance, message=f"{law.pattern} {node.dtype}")
    assert tried, f"no dtype has an instance of {law.pattern}"


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        ("add(%x, 0.0)", "%x"),
        ("mul(%x, 0.0)", "0.0"),
        ("sub(%x, %x)", "0.0"),
        ("div(%x, %x)", "1.0"),
        ("eq(%x, %x)", "true"),
        ("neg(sub(%x, %y))", "sub(%y, %x)"),
        ("add(neg(%x), neg(%y))", "neg(add(%x, %y))"),
        ("logical_not(lt(%x, %y))", "ge(%x, %y)"),
    ],
)
def test_well_known_laws_that_do_not_hold_are_caught(pattern: str, replacement: str) -> None:
    """The check above can fail; and none of these is in the table."""
    assert pattern not in {law.pattern for law in written()}
    law = Law(pattern, replacement)
    with pytest.raises(AssertionError, match=r"\("):
        test_a_law_holds_for_every_pair_of_special_values(law)


@pytest.mark.parametrize("law", written(), ids=lambda law: law.pattern)
def test_a_law_fires_on_its_own_pattern(law: Law) -> None:
    fired = False
    for node, _ in cases_of(law):
        before = hits[law.pattern]
        apply_laws(node)
        fired = fired or hits[law.pattern] > before
    assert fired


# ---- laws with a computed replacement, by example -------------------------------------------


def graph_of(body: str) -> Graph:
    """A graph over ``LEAVES`` that returns ``%1``."""
    lines = body.split("\n")
    alias = lines[-1].split(" = ")[1] if lines[-1].startswith("%1 = %") else ""
    if alias:
        lines.pop()
    rows = "".join(f"  {line}\n" for line in lines)
    return Graph.parse(f"graph main {{\n{LEAVES}{rows}  return {alias or '%1'}\n}}\n")


def values_for(graph: Graph, seed: int) -> Case:
    """Arguments full of special values."""
    rnd = random.Random(seed)
    args = []
    for node in graph.inputs:
        pool = special(node.dtype)
        shape = node.tensor_type.static_shape
        picked = [pool[rnd.randrange(len(pool))] for _ in range(int(np.prod(shape)))]
        args.append(np.array(picked, node.dtype.numpy).reshape(shape))
    return Case(seed, graph, tuple(args), {})


ROUNDING = {law.pattern for law in LAWS if law.rounding}
CAST_SOURCES = [d for d in DTYPES if not d.is_complex and d.short != "bf16"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("law", "before", "after"), EXAMPLES, ids=[f"{i}-{row[0]}" for i, row in enumerate(EXAMPLES)]
)
def test_examples(law: str, before: str, after: str | None) -> None:
    graph = graph_of(before)
    count = hits[law]
    result = Simplify().run(graph)
    if after is None:
        assert result is graph, str(result)
        return
    assert hits[law] > count
    assert result.same_as(graph_of(after)), str(result)
    result.verify("simplified")
    for seed in range(5):
        case = values_for(graph, seed)
        if law not in ROUNDING:
            assert_same_results(graph, result, case)
            continue
        finite = [
            np.nan_to_num(a, posinf=2, neginf=-3).clip(-9, 9) if a.dtype.kind == "f" else a
            for a in case.args
        ]
        assert_same_results(graph, result, Case(seed, graph, tuple(finite), {}), 1e-6)


def test_gelu_of_the_normal_distribution_is_as_exact_as_stated() -> None:
    def gelu(x):
        return gf.nn.functional.gelu(x)

    x = np.concatenate([np.linspace(-7, 7, 4001), [np.inf, -np.inf, np.nan, -0.0, 0.0, 1e-42]])
    x = x.astype(np.float32)
    program = gf.compile(gf.trace(gelu, gf.TensorSpec(x.shape)))
    assert "phi(" in str(program.stages()[-2].graph)
    found = program(gf.tensor(x)).numpy()
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        expected = wide * 0.5 * (1 + np.array([math.erf(v * math.sqrt(0.5)) for v in wide]))
        error = np.abs(found - expected) / np.abs(wide)
    assert np.nanmax(np.where(np.abs(wide) > 1e-30, error, 0)) <= 2.1 * 2.0**-24
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    far = -np.geomspace(5.75, 3e38, 100).astype(np.float32)
    np.testing.assert_array_equal(program(gf.tensor(np.resize(far, x.shape))).numpy(), 0)


def test_tanh_of_softplus_at_the_edges() -> None:
    text = "%0 = exp(%v)\n%w = log1p(%0)\n%1 = tanh(%w)"
    graph = Graph.parse('graph g {\n  %v: f32[8] = input(name="v")\n' + text + "\n  return %1\n}")
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 88.0, -100.0, 21.0], np.float32)
    with np.errstate(all="ignore"):
        (before,) = graph.run(values)
        (after,) = Simplify().run(graph).run(values)
    np.testing.assert_allclose(after, before, rtol=3e-7)


def test_tanh_of_bounded_softplus_at_the_edges() -> None:
    (text,) = (before for law, before, after in EXAMPLES if law.count("where") == 2 and after)
    head = 'graph g {\n  %v: f32[9] = input(name="v")\n'
    graph = Graph.parse(head + text + "\n  return %1\n}")
    values = np.array([np.nan, np.inf, 0.0, -0.0, 19.99, 20.0, 20.01, 88.0, -100.0], np.float32)
    result = Simplify().run(graph)
    assert "log1p" not in str(result) and str(result).count("where(") == 1
    np.testing.assert_allclose(result.run(values)[0], graph.run(values)[0], rtol=3e-7)


def test_every_computed_law_has_an_example() -> None:
    computed = {law.pattern for law in LAWS if not isinstance(law.replacement, str)}
    assert computed <= {row[0] for row in EXAMPLES if row[2] is not None}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("source", CAST_SOURCES, ids=lambda d: d.short)
def test_lossless_casts_lose_nothing(source: DType) -> None:
    values = special(source)
    for middle in CAST_SOURCES:
        back = values.astype(middle.numpy).astype(source.numpy)
        if is_lossless(source, middle):
            assert_same_array(values, back, message=f"{source} → {middle}")
    assert is_lossless(source, source)


@pytest.mark.parametrize("source", CAST_SOURCES, ids=lambda d: d.short)
@pytest.mark.parametrize("middle", CAST_SOURCES, ids=lambda d: d.short)
def test_merged_casts_agree_wherever_the_values_fit(source: DType, middle: DType) -> None:
    x = input_node("x", TensorType(source, (4,)))
    values = np.array([0, 1, 1, 3], source.numpy)
    if source.is_signed:
        values[2] = -1
    for last in CAST_SOURCES:
        if last.kind == "uint" and source.is_floating_point:
            continue  # C leaves a negative float as an unsigned integer undefined
        node = NODES.cast(NODES.cast(x, dtype=middle), dtype=last)
        graph = Graph((x,), (node,))
        result = Simplify().run(graph)
        if result is not graph:
            assert_same_results(graph, result, Case(0, graph, (values,), {}))


# ---- whole graphs ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_keep_their_results(seed: int) -> None:
    case = random_graph(seed, 40, symbolic=seed % 3 == 0)
    result = Simplify().run(case.graph)
    result.verify("simplified")
    assert_same_results(case.graph, result, case, 2e-6)
    assert Simplify().run(result) is result, str(case)


def test_places_and_names_go_over_to_replacements() -> None:
    x = input_node("x", TensorType(float32, (4,)))
    square = NODES.pow(x, 3.0)
    graph = Graph((x,), (square,), locations={square: Location("m.py", 3)}, names={square: "cube"})
    result = Simplify().run(graph)
    cube = result.outputs[0]
    assert cube.op.name == "mul" and result.names == {cube: "cube"}
    assert {n: p.line for n, p in result.locations.items()} == {cube: 3, cube.inputs[0]: 3}


def test_names_of_inputs_are_left_alone() -> None:
    x = input_node("x", TensorType(float32, (4,)))
    same = NODES.mul(x, 1.0)
    result = Simplify().run(Graph((x,), (same,), names={same: "y"}))
    assert result.outputs == (x,) and not result.names


def test_rules_that_undo_each_other_are_reported() -> None:
    x = input_node("x", TensorType(float32, (4,)))

    def undo(node: Node) -> Node | None:
        if node.op.name in ("sin", "cos"):
            return emit("cos" if node.op.name == "sin" else "sin", node.inputs[0])
        return None

    with pytest.raises(GraphError, match="does not come to an end"):
        rewrite(Graph((x,), (NODES.sin(x),)), undo)


def test_a_rule_must_keep_the_type() -> None:
    x = input_node("x", TensorType(float32, (4,)))
    with pytest.raises(GraphError, match="has another type"):
        rewrite(Graph((x,), (NODES.sin(x),)), lambda n: NODES.cast(x, dtype=int64))


# ---- patterns ----------------------------------------------------------------------------------


def test_finding_by_pattern() -> None:
    x, y = (input_node(n, TensorType(float32, (4,))) for n in "xy")
    graph = Graph((x, y), (NODES.add(NODES.mul(x, y), x), NODES.add(NODES.mul(x, y), y)))
    found = graph.find("add(mul(%a, %b), %a)")
    assert [(n, b["a"], b["b"]) for n, b in found] == [
        (graph.outputs[0], x, y),
        (graph.outputs[1], y, x),  # mul is commutative
    ]
    assert [n for n, _ in graph.find("mul(%_, %_)")] == [NODES.mul(x, y)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ad(%x)", "unknown operation 'ad'"),
        ("add(%x", r"expected ',' or '\)'"),
        ("add(%x))", "expected the end"),
        ("x", "expected %name, a number or operation"),
    ],
)
def test_bad_patterns_are_explained(text: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        parse_pattern(text)


def test_sums_of_many_paddings_take_no_longer_than_they_are_long() -> None:
    """Also where the same sums are added up again and again: 2^60 terms if each were looked at."""
    leaf = input_node("x", TensorType(float32, (4,)))
    total = NODES.pad(leaf, low=(4,), high=(0,), value=0)
    for _ in range(60):
        total = NODES.add(total, total)
    other = NODES.pad(leaf, low=(0,), high=(4,), value=0)
    assert apply_laws(NODES.add(other, total)) is None
    width, count = 3, 700
    leaves = [input_node(f"x{i}", TensorType(float32, (width,))) for i in range(count)]
    ends = [(width * i, width * (count - 1 - i)) for i in range(count)]
    terms = [
        NODES.pad(x, low=(low,), high=(high,), value=0) for x, (low, high) in zip(leaves, ends)
    ]
    total = terms[-1]
    for term in reversed(terms[:-1]):
        total = NODES.add(total, term)
    made = Simplify().run(Graph(tuple(leaves), (total,)))
    assert {n.op.name for n in made.nodes} == {"input", "concatenate"}
    values = [np.full(width, i, np.float32) for i in range(count)]
    np.testing.assert_array_equal(made.run(*values)[0], np.concatenate(values))

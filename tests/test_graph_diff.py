"""The difference of two graphs, whatever their nodes are numbered."""

import json

import pytest
from graphs import random_graph

import graphflow.ir.ops  # noqa: F401  (registers the operations)
from graphflow.ir.build import NODES, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.types import TensorType, float32
from graphflow.passes.pipeline import run_pipeline

F2 = TensorType(float32, (2,))


def parsed(*lines: str, ends: str = "return %out") -> Graph:
    return Graph.parse("graph main {\n" + "\n".join(lines) + f"\n{ends}\n}}\n").verify()


@pytest.mark.parametrize("seed", range(15))
def test_a_graph_and_its_copy_do_not_differ(seed: int) -> None:
    graph = random_graph(seed, 40).graph
    found = graph.diff(Graph.from_json(graph.to_json()))
    assert not found and len(found.pairs) == len(graph.nodes)
    assert str(found) == f"random → random: {len(graph.nodes)} nodes the same, " + (
        "0 changed, 0 removed, 0 added"
    )


@pytest.mark.parametrize("seed", range(15))
def test_every_node_is_accounted_for_once(seed: int) -> None:
    stages = run_pipeline(random_graph(seed, 60).graph)
    for old, new in ((stages[0].graph, stages[-2].graph), (stages[0].graph, stages[-1].graph)):
        found = old.diff(new)
        assert sorted(map(id, [*found.removed, *(p[0] for p in found.pairs)])) == sorted(
            map(id, old.nodes)
        )
        assert sorted(map(id, [*found.added, *(p[1] for p in found.pairs)])) == sorted(
            map(id, new.nodes)
        )
        assert bool(found) == (not old.same_as(new))
        marks = [mark for mark, text in found.lines() if not text.startswith("    ")]
        changed = len(found.changed)
        assert marks.count("-") == len(found.removed) + changed
        assert marks.count("+") == len(found.added) + changed
        assert json.loads(json.dumps(found.data()))["summary"] == found.summary


def chain(length: int, extra: int | None = None) -> Graph:
    x = node = input_node("x", F2)
    for number in range(length):
        node = NODES.tanh(node)
        if number == extra:
            node = NODES.neg(node)
    return Graph((x,), (node,))


@pytest.mark.parametrize("place", [0, 100, 5000, 9998])
def test_one_node_more_in_a_long_chain_is_one_node_more(place: int) -> None:
    found = chain(10_000).diff(chain(10_000, place))
    assert [n.op.name for n in found.added] == ["neg"] and not found.removed
    (change,) = found.changed
    assert change.what == ("operand 0",) and change.new.inputs[0] is found.added[0]
    back = chain(10_000, place).diff(chain(10_000))
    assert [n.op.name for n in back.removed] == ["neg"] and not back.added


def test_a_changed_attribute_is_a_change_not_a_new_node() -> None:
    lines = [
        '%x: f32[2,3] = input(name="x")',
        "%0 = reduce_sum(%x, axes=({},))",
        "%out = reduce_sum(%0, axes=(0,))",
    ]
    old, new = (parsed(lines[0], lines[1].format(axis), lines[2]) for axis in (0, 1))
    found = old.diff(new)
    assert found.summary == "2 nodes the same, 1 changed, 0 removed, 0 added"
    assert found.changed[0].what == ("type f32[3] → f32[2]", "attribute axes")
    assert str(found).splitlines()[1:] == [
        "- %0: f32[3] = reduce_sum(%x, axes=(0,))",
        "+ %0: f32[2] = reduce_sum(%x, axes=(1,))",
        "? type f32[3] → f32[2], attribute axes",
    ]


def test_places_in_the_code_match_what_structure_does_not() -> None:
    old = parsed('%x: f32[2] = input(name="x")', "%0 = exp(%x)  # m.py:3", "%out = neg(%0)")
    new = parsed('%x: f32[2] = input(name="x")', "%1 = neg(%x)  # m.py:2",
                 "%0 = exp(%1)  # m.py:3", "%out = neg(%0)")  # fmt: skip
    found = old.diff(new)
    assert [n.op.name for n in found.added] == ["neg"] and not found.removed
    assert [c.new.op.name for c in found.changed] == ["exp"]


def test_inputs_state_and_updates() -> None:
    x, w = '%x: f32[2] = input(name="x")', '%w: f32[2] = state(name="w")'
    old = parsed(x, w, "%out = add(%x, %w)", ends="return %out\nupdate %w = %out")
    new = parsed(x, w, "%out = add(%x, %w)")
    assert old.diff(new).ends == ("state 'w' is not updated any more",)
    assert new.diff(old).ends == ("state 'w' is updated now",)
    one = parsed(x, "%out = neg(%x)")
    other = parsed('%y: f32[2] = input(name="y")', "%out = neg(%y)")
    found = one.diff(other)
    assert [n.attrs["name"] for n in (*found.removed, *found.added)] == ["x", "y"]
    assert found.ends == ("inputs: not the same nodes in the same order",)


def test_a_changed_region_shows_its_own_difference() -> None:
    def looped(op: str) -> Graph:
        return parsed(
            '%x: f32[2] = input(name="x")', "%n: i64[] = constant(3)",
            "%0 = scan(%x, body=@body, carried=1, length=3, reverse=false, scanned=0)",
            "@body = graph body {", '%c: f32[2] = input(name="c")', f"%0 = {op}(%c)",
            "return %0", "}", "%out = get(%0, index=0)",
        )  # fmt: skip

    found = looped("tanh").diff(looped("neg"))
    assert [c.what for c in found.changed] == [("attribute body",)]
    text = str(found)
    assert "? body: 1 nodes the same" in text and "+     %0: f32[2] = neg(%c)" in text

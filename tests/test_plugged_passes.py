"""Passes that a user plugs in, and the page that says how to write one."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.ir.build import NODES, input_node
from graphflow.ir.graph import Graph
from graphflow.ir.node import make_node
from graphflow.passes.base import Pass
from graphflow.passes.rewrite import rewrite
from graphflow.records import replace

PAGE = Path(__file__).parent.parent / "docs" / "writing_a_pass.md"


def test_the_page_runs_and_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text()
    namespace: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)):
        exec(compile(block, f"block {number}", "exec"), namespace)
    printed = re.sub(r"  # .?block.*", "", capsys.readouterr().out)
    for block in re.findall(r"^```text\n(.*?)^```", text, re.M | re.S):
        assert block in printed
    assert float(printed.split()[-1]) == pytest.approx(0.095, abs=1e-3)
    found = namespace["gate"](gf.linspace(-4, 4, 5)).numpy()
    x = np.linspace(-4, 4, 5)
    np.testing.assert_allclose(found, x * np.clip(x / 6 + 0.5, 0, 1), atol=1e-6)


class Made(Pass):
    """A pass that returns what a function makes of the graph."""

    name = "made"

    def __init__(self, make) -> None:
        object.__setattr__(self, "make", make)

    def run(self, graph):
        return self.make(graph)


def run_with(make) -> Any:
    return gf.compile(lambda x: gf.tanh(x) * x, passes=[Made(make)])(gf.ones(3))


def other_type(graph: Graph) -> Graph:
    return replace(graph, outputs=(NODES.reduce_sum(graph.outputs[0], axes=(0,)),))


def other_inputs(graph: Graph) -> Graph:
    y = input_node("y", graph.inputs[0].tensor_type)
    return replace(graph, inputs=(y,), outputs=(NODES.neg(y),))


def wrong_type(graph: Graph) -> Graph:
    (out,) = graph.outputs
    return replace(graph, outputs=(make_node(out.op, out.inputs, {}, gf.Graph.parse(
        'graph g {\n%x: f32[7] = input(name="x")\nreturn %x\n}\n').inputs[0].type),))  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda graph: None, r"pass 'made' returned NoneType, not a Graph"),
        (lambda graph: "text", r"pass 'made' returned str"),
        (wrong_type, r"(?s)'made' made a graph.*has type f32\[7\], but its operation yields f32"),
        (lambda g: replace(g, inputs=()), r"(?s)'made'.*uses the input 'x' of another graph"),
        (other_type, r"'made' changed the outputs .* from \(f32\[3\]\) to \(f32\[\]\)"),
        (other_inputs, r"'made' changed the inputs of the graph"),
        (lambda g: replace(g, outputs=()), r"'made' changed the outputs"),
    ],
)
def test_a_wrong_pass_is_named_with_what_is_wrong(make, message: str) -> None:
    with pytest.raises(gf.GraphError, match=message):
        run_with(make)


def test_an_endless_rule_and_a_rule_of_another_type() -> None:
    with pytest.raises(gf.GraphError, match="does not come to an end"):
        run_with(lambda g: rewrite(g, lambda n: NODES.tanh(n) if n.op.name == "tanh" else None))
    with pytest.raises(gf.GraphError, match="another type"):
        run_with(lambda g: rewrite(
            g, lambda n: NODES.cast(n, dtype=gf.float64) if n.op.name == "tanh" else None
        ))  # fmt: skip


def test_any_object_with_run_is_a_pass_and_is_shown_by_its_name() -> None:
    class Nothing:
        def run(self, graph: Graph) -> Graph:
            return graph

    f = gf.compile(lambda x: x + 1, passes=[Nothing(), Made(lambda g: g)])
    f(gf.ones(2))
    names = [stage.name for stage in f.programs[0].compiled_again()[0]]
    assert names[:3] == ["traced", "Nothing", "made"]
    with pytest.raises(TypeError, match="takes passes"):
        gf.compile(lambda x: x, passes=[3])

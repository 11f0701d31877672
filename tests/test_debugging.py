"""``gf.verify``: what is planted is found and named; what is right is left in peace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import flags, nn, optim
from graphflow.errors import GraphFlowError
from graphflow.ir.build import NODES
from graphflow.ir.graph import Graph
from graphflow.ir.node import Node
from graphflow.ir.op import lookup
from graphflow.passes import laws
from graphflow.passes.rewrite import rewrite


@pytest.fixture
def fresh_cache(tmp_path: Path):
    with flags.override(cache_dir=str(tmp_path)):
        yield


def make_step():
    gf.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x) - 0.25 * x.sum(), y)
        loss.backward()
        opt.step()
        return loss

    return model, step


def data():
    gf.manual_seed(1)
    return gf.randn(4, 6), gf.randint(0, 3, (4,))


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line)


def test_a_training_step_agrees_and_its_state_is_put_back() -> None:
    model, step = make_step()
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    found = gf.verify(step, *data())
    assert found and found.ok, str(found)
    assert {row.form for row in found.compared} >= {"after fuse", "kernels", "eager"}
    assert found.check() is found
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_a_planted_wrong_law_is_named() -> None:
    wrong = laws.Law("sub(%x, mul(%y, %z))", "add(%x, mul(%y, %z))")
    with laws.laws_in_force((wrong, *laws.LAWS)):
        _, step = make_step()
        found = gf.verify(step, *data())
    assert not found
    first = found.finding
    assert first is not None and (first.stage, first.rule) == ("simplify", wrong.pattern)
    assert first.node.startswith("sub(") and first.became.endswith(
        "add(f32[4,3], f32[]) -> f32[4,3]"
    )
    assert first.location is not None and first.location.file == __file__
    assert first.location.line == line_of("0.25 * x.sum()")
    with pytest.raises(GraphFlowError, match="simplify"):
        found.check()


class HalfTanh:
    """A pass with a wrong rule."""

    name = "half_tanh"

    def run(self, graph: Graph) -> Graph:
        return rewrite(graph, self.rule)

    def rule(self, node: Node) -> Node | None:
        if node.op.name == "tanh":
            return NODES.erf(node.inputs[0])
        return None


class NoRules:
    """A wrong pass that makes nodes by itself."""

    name = "by_hand"

    def run(self, graph: Graph) -> Graph:
        old = graph.outputs[0]
        return graph.with_roots([NODES.add(NODES.exp(old), old)], graph.updates)


def saturated(x):
    y = (x * 2.0).tanh()
    return y + 1.0


@pytest.mark.parametrize(("made", "rule"), [(HalfTanh(), "HalfTanh.rule"), (NoRules(), "")])
def test_a_wrong_pass_that_was_plugged_in_is_named(made: object, rule: str) -> None:
    found = gf.verify(saturated, gf.randn(5), passes=[made])
    assert found.finding is not None
    assert found.finding.stage == made.name and found.finding.rule == rule
    if rule:
        assert found.finding.location.line == line_of("y = (x * 2.0).tanh()")


def test_a_wrong_kernel_is_named(monkeypatch: pytest.MonkeyPatch, fresh_cache: None) -> None:
    op = lookup("tanh")
    kept = op.scalar
    object.__setattr__(op, "scalar", "({0} * 0.5)")
    try:
        found = gf.verify(saturated, gf.randn(5))
    finally:
        object.__setattr__(op, "scalar", kept)
    first = found.finding
    assert first is not None and first.stage == "kernels" and "tanh" in first.rule
    assert first.location is not None and first.location.file == __file__


def test_what_differs_between_eager_and_trace_is_named() -> None:
    calls = []

    def counting(x):
        calls.append(1)
        y = x.exp()
        return y * len(calls)

    first = gf.verify(counting, gf.randn(3)).finding
    assert first is not None and first.stage == "eager"
    assert first.location.line == line_of("return y * len(calls)")


def test_graphs_and_bad_arguments() -> None:
    graph = gf.trace(saturated, gf.TensorSpec((5,)))
    assert gf.verify(graph, gf.randn(5))
    assert gf.verify(Graph.parse(str(graph)), gf.randn(5))
    with pytest.raises(TypeError, match="callable or a Graph"):
        gf.verify(3)


def test_loops_and_half_precision_agree() -> None:
    def run(x, w):
        return gf.scan(lambda h, row: ((h + row @ w).tanh(),) * 2, gf.zeros(4), x)[0]

    assert gf.verify(run, gf.randn(6, 4), gf.randn(4, 4))
    assert gf.verify(saturated, gf.randn(7).half())


def test_state_that_passes_drop_is_no_offence() -> None:
    idle, counted = gf.zeros(3), gf.ones(3)

    def run(x):
        idle.copy_(idle * 1.0)
        counted.add_(x.sum())
        return counted * 2

    found = gf.verify(run, gf.randn(4))
    assert found, str(found)
    assert "after dce" in {row.form for row in found.compared}


# ---- stepping through kernels --------------------------------------------------------

STEPPED = """
import sys
import graphflow as gf

program = gf.compile(gf.trace(lambda x: (x * 2).exp().sum(), gf.TensorSpec((3, 4))))
print("kernel:", program.kernels[0].source_path)
print(program(gf.ones(3, 4)))
"""


def test_a_debugger_steps_through_a_generated_kernel(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(STEPPED)

    def debugged(commands: str) -> str:
        environment = {**os.environ, "GRAPHFLOW_DISABLE_JIT": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "pdb", str(script)], input=commands, text=True, timeout=300,
            capture_output=True, env=environment,
        )  # fmt: skip
        return done.stdout

    (file,) = re.findall(r"kernel: (\S+)", debugged("continue\nquit\n"))
    lines = Path(file).read_text().splitlines()
    inner = next(i for i, line in enumerate(lines, 1) if "vm.exp" in line)
    seen = debugged(f"break {file}:{inner}\ncontinue\np i, float(a[i])\np a\nclear 1\nc\nquit\n")
    assert "(0, 1.0)" in seen and "<pointer to f32 at 0x" in seen and "tensor(88.66" in seen


def test_anomalies_by_pytorchs_names():
    """Forwards and backwards, eagerly and compiled; switches nest and leave no trace."""
    from graphflow.autograd import detect_anomaly, is_anomaly_enabled, set_detect_anomaly

    def slope(x):
        x = x.detach().requires_grad_()
        (x * 0).sqrt().mul(x).sum().backward()  # the slope of sqrt at 0 is infinite, times 0
        return x.grad

    x = gf.ones(2)
    for run in (slope, gf.compile(slope)):
        assert np.isnan(run(x).numpy()).all()
        with detect_anomaly(), pytest.raises(gf.NonFiniteError, match="NaN"):
            run(x)
        assert np.isnan(run(x).numpy()).all() and not is_anomaly_enabled()
    with detect_anomaly(), set_detect_anomaly(False):
        assert np.isnan(slope(x).numpy()).all()
    with detect_anomaly(), detect_anomaly():
        assert (gf.ones(1) / 0).isinf().all()  # infinities are none
    set_detect_anomaly(True)
    try:
        assert is_anomaly_enabled()
        with set_detect_anomaly(False):
            assert not is_anomaly_enabled()
        assert is_anomaly_enabled()
    finally:
        set_detect_anomaly(False)
    assert not is_anomaly_enabled()
    with detect_anomaly(check_nan=False):
        assert np.isnan(slope(x).numpy()).all()

"""Profiles: of a program, and of a block."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from front import linear, ramp, training_step

import graphflow as gf
from graphflow import nn, optim
from graphflow.profiling import watch
from graphflow.profiling.limits import Limits, limits
from graphflow.profiling.rows import Profile, Row


@pytest.fixture(scope="module")
def program():
    model = nn.Sequential(linear(4, 3), nn.Tanh(), linear(3, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = training_step(model, optimizer, lambda f: f)
    return gf.compile(gf.trace(step, gf.TensorSpec((5, 4), name="x")))


def test_a_programs_profile_has_a_row_a_kernel_and_puts_state_back(program):
    before = {k: t.numpy().copy() for k, t in program.state_dict().items()}
    found = program.profile(ramp(5, 4), repeat=4)
    assert [row.name for row in found.rows] == [k.name for k in program.kernels]
    assert {row.runs for row in found.rows} == {4} and found.runs == 4 and found.seconds > 0
    assert [(row.bytes, row.flops) for row in found.rows] == [
        (k.bytes, k.flops) for k in program.kernels
    ]
    assert any("front.py" in row.line for row in found.rows)
    assert {"model.0", "model.2"} <= {row.module for row in found.rows}
    assert all(row.share is None or row.share > 0 for row in found.rows)
    for name, tensor in program.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])
    assert program.loaded.timings() == []
    assert program.profile(ramp(5, 4)).runs >= 5


def test_tables_and_json(program):
    found = program.profile(ramp(5, 4), repeat=2)
    text = str(found)
    for word in ("a step, of 2", "of limit", found.sorted()[0].name):
        assert word in text
    times = [row.total for row in found.sorted()]
    assert times == sorted(times, reverse=True)
    assert "model.0" in found.modules() and "front.py:" in found.lines()
    assert found.modes().splitlines()[2].startswith("static")
    assert len(found.table(2).splitlines()) == 4
    data = json.loads(found.to_json())
    assert data["version"] == 1 and len(data["rows"]) == len(found.rows)


def test_the_chrome_trace_lays_kernels_end_to_end(program, tmp_path: Path):
    found = program.profile(ramp(5, 4), repeat=2)
    found.to_chrome(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    kernels = [e for e in events if e["ph"] == "X" and e["tid"] == 1]
    assert [e["name"] for e in kernels] == [row.name for row in found.rows]
    for one, other in itertools.pairwise(kernels):
        assert other["ts"] == pytest.approx(one["ts"] + one["dur"])
    assert sum(e["dur"] for e in kernels) == pytest.approx(1e6 * sum(r.seconds for r in found.rows))
    names = {e["args"]["name"] for e in events if e["ph"] == "M"}
    assert f"program {program.graph.name}" in names


def test_a_block_has_static_and_eager_side_by_side(tmp_path: Path):
    @gf.compile
    def fast(x):
        return gf.exp(x) * 2

    fast(ramp(50))  # made before the block
    late = gf.compile(lambda x: gf.tanh(x) + 1)
    with gf.profile() as found:
        for _ in range(3):
            fast(ramp(50))
            late(ramp(50))
            gf.exp(ramp(50))
    static = [row for row in found.rows if row.mode == "static"]
    assert {row.owner for row in static} >= {"fast"} and {row.runs for row in static} == {3}
    assert len(static) == 2
    (exp,) = [row for row in found.rows if row.mode == "eager" and row.name == "exp"]
    assert exp.runs == 3 and exp.bytes == 400 and __file__ in exp.line
    text = found.modes()
    assert "static" in text and "eager" in text and "eager operations" in str(found)
    found.to_chrome(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    starts = [e["ts"] for e in events if e["name"] == "exp" and e["pid"] == 1]
    assert len(starts) == 3 and starts == sorted(starts)


def test_static_and_eager_work_of_a_module_stand_side_by_side():
    model = nn.Sequential(linear(4, 3), nn.Tanh(), linear(3, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    eager = training_step(model, optimizer, lambda f: f)
    static = gf.compile(eager)
    static(ramp(5, 4))
    with gf.profile() as found:
        static(ramp(5, 4))
        eager(ramp(5, 4))
    of = {(row.mode, row.module) for row in found.rows}
    assert {("static", "model.0"), ("eager", "model.0"), ("eager", "model.1")} <= of
    tanh = [row.module for row in found.rows if row.mode == "eager" and row.name == "tanh"]
    assert tanh == ["model.1"]
    products = {row.module for row in found.rows if row.mode == "eager" and row.name == "mul"}
    assert "model.1" in products  # its gradient
    first = next(s for s in found.modes("module").splitlines() if s.startswith("model.0"))
    assert re.search(r"\d+\.\d$", first) and "front.py" in found.modes("line")
    with pytest.raises(ValueError, match="module or line"):
        found.modes("kernel")


def test_a_trace_for_tensorboard_nests_kernels_in_modules(program, tmp_path: Path):
    path = program.profile(ramp(5, 4), repeat=2).to_tensorboard(tmp_path / "log", "a run")
    assert re.fullmatch(r"a_run\.\d{13}\.pt\.trace\.json", path.name)
    whole = json.loads(path.read_text())
    events = [e for e in whole["traceEvents"] if e["ph"] == "X"]
    by = {c: [e for e in events if e["cat"] == c] for c in ("cpu_op", "python_function")}
    assert whole["schemaVersion"] == 1 and len(by["cpu_op"]) == len(program.kernels)
    (step,) = [e for e in events if e["name"] == "ProfilerStep#0"]
    assert step["cat"] == "user_annotation" and step["dur"] == sum(e["dur"] for e in by["cpu_op"])
    assert {"nn.Module: model", "nn.Module: model.0"} <= {e["name"] for e in by["python_function"]}
    for one, other in itertools.combinations(events, 2):  # apart, or one inside the other
        a, b = sorted(
            ((e["ts"], e["ts"] + e["dur"]) for e in (one, other)), key=lambda s: (s[0], -s[1])
        )
        assert a[1] <= b[0] or b[1] <= a[1]


def test_nothing_is_left_behind_after_a_block():
    from graphflow import dispatch

    before, call = dispatch._values, nn.Module.__call__
    with pytest.raises(ZeroDivisionError), gf.profile():
        raise ZeroDivisionError
    assert dispatch._values is before and nn.Module.__call__ is call and not watch.active
    f = gf.compile(lambda x: x + 1)
    with gf.profile():
        f(ramp(3))
    assert f.programs[0].loaded.timings() == []


def test_a_program_of_several_sizes():
    program = gf.compile(gf.trace(lambda x: gf.softmax(x, 1), gf.TensorSpec(("n", 3), name="x")))
    for rows in (2, 7):
        found = program.profile(ramp(rows, 3), repeat=2)
        assert found.rows and all(row.runs == 2 for row in found.rows)


def test_the_calls_of_a_loop_are_rows_and_the_loop_is_none():
    graph = gf.Graph.parse("""graph looped {
  %xs: f32[5,8] = input(name="xs")
  %init: f32[8] = input(name="init")
  %0 = scan(%init, %xs, body=@body, carried=1, length=5, reverse=false, scanned=1)
    @body = graph body {
      %c: f32[8] = input(name="c")
      %x: f32[8] = input(name="x")
      %0 = add(%c, %x)
      %1 = tanh(%0)
      return %1
    }
  %1 = get(%0, index=0)
  return %1
}""")
    program = gf.compile(graph)
    found = program.profile(ramp(5, 8), ramp(8), repeat=3)
    assert "scan" not in {row.name for row in found.rows}
    inside = [row for row in found.rows if "tanh" in row.ir]
    assert inside and all(row.runs == 15 for row in inside)
    assert sum(row.total for row in found.rows) > 0


def test_wrong_use_is_one_clear_error(program):
    for repeat in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="repeat must be a whole number"):
            program.profile(ramp(5, 4), repeat=repeat)
    with pytest.raises(gf.GraphFlowError, match="one at a time"), gf.profile(), gf.profile():
        pass
    with gf.profile() as found:
        with pytest.raises(gf.GraphFlowError, match="after the `with"):
            found.table()
        with pytest.raises(gf.GraphFlowError, match="timed already"):
            program.profile(ramp(5, 4))
    with pytest.raises(AttributeError):
        found.nonsense  # noqa: B018


def test_shares_are_of_the_longer_of_moving_and_computing():
    machine = Limits(((1000, 100.0), (10_000, 10.0)), 50.0)
    assert machine.bandwidth(1000) == 100 and machine.bandwidth(10**9) == 10
    assert machine.seconds(1000, 0) == 10 and machine.seconds(1000, 5000) == 100
    assert machine.seconds(1000, 0, 2) == 5 and machine.seconds(10**6, 0, 2) == 10**5
    row = Row("static", "f", "k", 2, 20.0, 1000, 0, 0.5, "m.py:1", "fc")
    profile = Profile("f", 20.0, 2, (row,), machine)
    assert "50%" in profile.table() and row.total == 40
    found = limits()
    assert found.flops > 1e8 and all(rate > 1e7 for _, rate in found.copies)


def test_profiling_is_imported_when_asked_for():
    code = (
        "import sys, graphflow as gf; assert 'graphflow.profiling.record' not in sys.modules; "
        "gf.profile; assert 'graphflow.profiling.record' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)

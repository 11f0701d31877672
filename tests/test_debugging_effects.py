"""NaN guards, printing, callbacks and debuggers, in eager and compiled functions."""

from __future__ import annotations

import bdb
import math
import sys
from pathlib import Path

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import flags, nn, optim
from graphflow.errors import GraphFlowError, NonFiniteError, TraceError


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line)


# ---- the guard ---------------------------------------------------------------------------


def ratio(x):
    shifted = x - 1.0
    root = shifted.log()
    return (root * 2.0).sum()


@pytest.mark.parametrize("function", [ratio, gf.compile(ratio)], ids=["eager", "compiled"])
def test_the_first_nan_is_named_with_its_line(function) -> None:
    good, bad = gf.tensor([2.0, 3.0]), gf.tensor([2.0, -3.0])
    with gf.nan_guard():
        assert math.isfinite(function(good).item())
        with pytest.raises(NonFiniteError, match=r"NaN[\s\S]*operand 0: from -4 to 1") as caught:
            function(bad)
    assert caught.value.location.line == line_of("root = shifted.log()")
    assert "log(f32[2]" in str(caught.value)
    assert math.isnan(function(bad).item())  # nobody looks any more


def overflow(x):
    large = (x * 100.0).exp()
    return large - large


@pytest.mark.parametrize("function", [overflow, gf.compile(overflow)], ids=["eager", "compiled"])
def test_infinities_come_first_or_are_let_pass(function) -> None:
    x = gf.tensor([1.0, 0.5])
    with gf.nan_guard(), pytest.raises(NonFiniteError, match="infinit") as caught:
        function(x)
    assert f":{line_of('large = (x * 100.0).exp()')}" in str(caught.value)
    with gf.nan_guard(inf=False), pytest.raises(NonFiniteError, match="NaN") as caught:
        function(x)
    assert caught.value.location.line == line_of("return large - large")


def test_masks_with_infinity_are_no_offence() -> None:
    def attend(x, mask):
        return F.softmax(x.masked_fill(mask, -math.inf), -1)

    x, mask = gf.randn(3, 4), gf.tensor([False, True, False, True])
    with gf.nan_guard():
        np.testing.assert_allclose(attend(x, mask), gf.compile(attend)(x, mask), rtol=1e-6)


def test_a_guarded_step_that_fails_has_changed_nothing() -> None:
    model = nn.Linear(3, 1)
    opt = optim.SGD(model.parameters(), lr=0.1)

    @gf.compile
    def step(x):
        opt.zero_grad()
        loss = model(x).log().mean()
        loss.backward()
        opt.step()
        return loss

    step(gf.ones(2, 3))  # whatever it gives
    with gf.no_grad():
        model.weight.fill_(0.5)
        model.bias.fill_(0.0)
    with gf.nan_guard():
        step(gf.ones(2, 3))
        before = model.weight.detach().numpy().copy()
        with pytest.raises(NonFiniteError, match="log") as caught:
            step(-gf.ones(2, 3))
    np.testing.assert_array_equal(model.weight.detach().numpy(), before)
    assert caught.value.location.line == line_of("loss = model(x).log().mean()")


def test_what_came_in_is_not_blamed_on_an_operation() -> None:
    with gf.nan_guard(), pytest.raises(NonFiniteError, match="came in by input x"):
        gf.compile(overflow)(gf.tensor([math.nan]))
    with gf.nan_guard(), pytest.raises(GraphFlowError, match="one at a time"), gf.nan_guard():
        pass


# ---- printing and callbacks --------------------------------------------------------------


def test_prints_happen_at_every_call_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    def noisy(x):
        gf.print(x, label="before")
        y = x * 2
        gf.print("twice", y)
        return y + 1

    noisy(gf.tensor([1.0]))
    expected = capsys.readouterr().out
    assert expected == "before: tensor([1.])\ntwice tensor([2.])\n"
    compiled = gf.compile(noisy)
    for _ in range(3):
        compiled(gf.tensor([1.0]))
        assert capsys.readouterr().out == expected
    assert len(compiled.programs) == 1
    gf.verify(noisy, gf.tensor([1.0]))
    assert capsys.readouterr().out == 2 * expected  # compiled and eager, not for every stage


def test_callbacks_see_gradients_and_may_end_a_step() -> None:
    seen = []
    w = gf.tensor([1.0, 2.0], requires_grad=True)

    @gf.compile
    def step(x):
        loss = (w * x).sum()
        gf.callback(lambda v: seen.append(v.item()), loss)
        loss.backward()
        gf.callback(lambda g: seen.append(g.tolist()), w.grad)
        return loss.detach()

    for k in (1.0, 2.0):
        w.grad = None
        step(gf.tensor([k, k]))
    assert seen == [3.0, [1.0, 1.0], 6.0, [2.0, 2.0]]

    def fail(value):
        raise ValueError("enough")

    with pytest.raises(GraphFlowError, match="enough"):
        gf.compile(lambda x: gf.callback(fail, x))(gf.ones(2))


def test_effects_in_the_body_of_a_loop_are_refused() -> None:
    def body(h, x):
        gf.print(h)
        return h + x, h

    with pytest.raises(TraceError, match="body calls a Python function"):
        gf.compile(lambda x: gf.scan(body, gf.zeros(()), x)[0])(gf.ones(3))


def test_a_graph_of_another_process_says_what_is_missing() -> None:
    graph = gf.trace(lambda x: gf.print(x), gf.TensorSpec((2,)))
    text = str(graph).replace("function=", "function=9")
    again = gf.Graph.parse(text)
    with pytest.raises(GraphFlowError, match="of the process that traced"):
        again.run(
            np.ones(2, np.float32),
            state={n.attrs["name"]: np.zeros((), np.int64) for n in again.state},
        )


# ---- debuggers ---------------------------------------------------------------------------


def stopping(x):
    doubled = x * 2
    gf.breakpoint()
    return doubled + 1


@pytest.mark.parametrize("function", [stopping, gf.compile(stopping)], ids=["eager", "compiled"])
def test_a_breakpoint_stops_where_it_is_written(function, monkeypatch: pytest.MonkeyPatch) -> None:
    stops = []

    def hook() -> None:
        frame = sys._getframe(1)
        while frame.f_code.co_filename != __file__:
            frame = frame.f_back
        stops.append((frame.f_lineno, frame.f_code.co_name, frame.f_locals["doubled"].tolist()))

    monkeypatch.setattr(sys, "breakpointhook", hook)
    for k in (1.0, 3.0):
        function(gf.tensor([k]))
    line = line_of("gf.breakpoint()")
    assert stops == [(line, "stopping", [2.0]), (line, "stopping", [6.0])]


class Stepper(bdb.Bdb):
    """A debugger that steps through every line and keeps those of kernel files."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.lines = str(folder), []

    def user_line(self, frame) -> None:
        if frame.f_code.co_filename.startswith(self.folder):
            values = {k: v for k, v in frame.f_locals.items() if isinstance(v, float)}
            self.lines.append((frame.f_code.co_filename, frame.f_lineno, values))
        self.set_step()


def test_a_debugger_steps_through_generated_kernels(tmp_path: Path) -> None:
    with flags.override(disable_jit=True, cache_dir=str(tmp_path)):
        run = gf.compile(lambda x: (x * 2.0).tanh())
        x = gf.tensor([0.25, 1.0])
        run(x)
        stepper = Stepper(tmp_path)
        stepper.runcall(run, x)
    assert stepper.lines
    file, line, _ = stepper.lines[-1]
    text = Path(file).read_text().splitlines()[line - 1]
    assert text.strip() and any("tanh" in Path(f).read_text() for f, _, _ in stepper.lines)

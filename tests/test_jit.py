"""PyTorch's names for compiled functions and profiles: ``jit`` and ``profiler``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import graphflow as gf
from graphflow import jit, nn, profiler


def small() -> nn.Sequential:
    gf.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5))


def test_a_traced_module_follows_its_mode_shape_and_weights(tmp_path: Path) -> None:
    model = small()
    weight, bias = (np.array(p.detach()) for p in model.parameters())
    traced = jit.trace(model.eval(), gf.randn(2, 3))
    assert traced.latest is not None and isinstance(traced, jit.ScriptModule)

    def check(found: gf.Tensor, x: gf.Tensor, weight: np.ndarray) -> None:
        expected = np.tanh(x.numpy() @ weight.T + bias)
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)

    for x in (gf.randn(2, 3), gf.randn(5, 3)):
        check(traced(x), x, weight)
    assert traced.eval() is traced and traced.to("cpu") is traced
    assert (traced.train()(gf.ones(50, 3)) == 0).any(), "dropout acts after train()"
    x = gf.randn(2, 3)
    traced.eval()(x)
    assert "tanh" in str(traced.graph) and "tanh" in traced.code
    assert traced.state_dict().keys() == model.state_dict().keys()
    jit.save(traced, tmp_path / "model.pt")
    with gf.no_grad():
        model[0].weight.zero_()
    check(traced(x), x, 0 * weight)
    check(jit.load(tmp_path / "model.pt", map_location="cpu")(x), x, weight)


def test_a_scripted_function_takes_both_ways() -> None:
    @jit.script
    def halved(x: gf.Tensor, down: bool) -> gf.Tensor:
        return x / 2 if down else x * 2

    x = gf.tensor([4.0])
    assert [halved(x, down).item() for down in (True, False, True)] == [2.0, 8.0, 2.0]
    assert jit.script(halved) is halved and jit.script(dict) is dict
    assert not jit.is_tracing() and not jit.is_scripting()
    seen = []
    gf.trace(lambda x: seen.append(jit.is_tracing()) or x + 1, x)
    assert seen == [True]


def test_what_cannot_be_traced_saved_or_loaded_is_said(tmp_path: Path) -> None:
    fresh = jit.script(lambda x: x + 1)
    for wrong, error in (
        (lambda: jit.trace(small()), TypeError),
        (lambda: jit.trace(3, gf.ones(1)), TypeError),
        (lambda: jit.save(small(), tmp_path / "x"), TypeError),
        (lambda: fresh.graph, gf.GraphFlowError),
        (lambda: fresh.save(tmp_path / "x"), gf.GraphFlowError),
        (lambda: jit.load(tmp_path / "x", "cuda:0"), gf.GraphFlowError),
        (lambda: jit.freeze(small().train()), gf.GraphFlowError),
    ):
        with pytest.raises(error):
            wrong()
    assert not (tmp_path / "x").exists()


def test_a_schedule_names_each_step() -> None:
    action = profiler.schedule(skip_first=1, wait=1, warmup=1, active=2, repeat=2)
    names = ["NONE", "NONE", "WARMUP", "RECORD", "RECORD_AND_SAVE"] + [
        "NONE", "WARMUP", "RECORD", "RECORD_AND_SAVE", "NONE", "NONE",
    ]  # fmt: skip
    assert [action(step).name for step in range(len(names))] == names
    with pytest.raises(ValueError, match="active at least 1"):
        profiler.schedule(wait=1, warmup=1, active=0)


def test_a_profile_measures_the_steps_that_its_schedule_picks(tmp_path: Path) -> None:
    step = gf.compile(lambda x: (x * 2).sin().sum())
    x = gf.ones(64, 64)
    step(x)
    ready = []

    @profiler.record_function("outer")
    def work() -> None:
        step(x)
        gf.cos(x)

    cycle = profiler.schedule(wait=1, warmup=0, active=2, repeat=2)
    with profiler.profile(
        activities=[profiler.ProfilerActivity.CPU],
        schedule=cycle,
        on_trace_ready=lambda prof: ready.append(prof.key_averages()),
    ) as prof:
        for _ in range(7):
            work()
            prof.step()
    assert len(ready) == 2
    for found in ready:
        counts = {row.key: row.count for row in found}
        assert counts["outer"] == counts["cos"] == 2 and len(counts) >= 3
        ranged = next(row for row in found if row.key == "outer")
        assert ranged.self_cpu_time_total == 0 < ranged.cpu_time == ranged.cpu_time_total / 2
        assert found.self_cpu_time_total <= ranged.cpu_time_total
    text = ready[0].table(sort_by="cuda_time_total", row_limit=1)
    assert "outer" in text and "cos" not in text
    with pytest.raises(ValueError, match="sort_by"):
        ready[0].table(sort_by="beauty")
    prof.export_chrome_trace(tmp_path / "trace.json")
    names = [e["name"] for e in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]]
    assert names.count("outer") == 2 and names.count("cos") == 2


def test_a_profile_without_a_schedule_is_of_the_whole_block(tmp_path: Path) -> None:
    with profiler.profile(
        on_trace_ready=profiler.tensorboard_trace_handler(str(tmp_path), "here")
    ) as prof:
        gf.cos(gf.ones(3))
    assert prof.result.rows[0].name == "cos" and list(tmp_path.iterdir())
    with pytest.raises(gf.GraphFlowError, match="before start"):
        prof.step()
    with pytest.raises(gf.GraphFlowError, match="nothing has been measured"):
        profiler.profile().key_averages()

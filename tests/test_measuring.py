"""PyTorch's names for measuring: timers of statements, and counts of additions and products."""

from __future__ import annotations

from typing import Any

import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn
from graphflow.errors import GraphFlowError, TraceError
from graphflow.utils.benchmark import Compare, Measurement, TaskSpec, Timer, select_unit
from graphflow.utils.flop_counter import FlopCounterMode


class Clock:
    """Time that a statement moves on itself: a second for each run."""

    def __init__(self) -> None:
        self.now, self.runs = 0.0, 0

    def __call__(self) -> float:
        return self.now

    def run(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.runs += 1


def test_a_block_of_runs_is_timed_after_a_warm_up() -> None:
    clock = Clock()
    found = Timer("run()", timer=clock, globals={"run": clock.run}).timeit(400)
    assert found.raw_times == [400.0] and found.number_per_run == 400 and found.times == [1.0]
    assert clock.runs == 4 + 400 and found.median == found.mean == 1 and found.iqr == 0
    assert found.title == "stmt: (run())" and "1 measurement, 400 runs, 1 thread" in repr(found)


def test_blocks_are_timed_until_there_are_enough() -> None:
    clock, seen = Clock(), []
    timer = Timer(
        "run(1e-3)", "x = 3", timer=clock, globals={"run": clock.run}, label="work", sub_label="one"
    )
    found = timer.blocked_autorange(lambda n, t: seen.append((n, round(t, 6))), min_run_time=0.0095)
    assert found.number_per_run == 1 and len(found.times) == len(seen) == 10
    assert set(seen) == {(1, 0.001)} and "setup: x = 3" in repr(found)
    assert found.title == "work: one" and found.as_row_name == "one"
    steady = timer.adaptive_autorange(min_run_time=0.003)
    assert steady.iqr < 1e-6 and abs(steady.median - 1e-3) < 1e-9
    before = gf.get_num_threads()
    counted: list[int] = []
    Timer("f()", globals={"f": lambda: counted.append(gf.get_num_threads())}).timeit(3)
    assert set(counted) == {1} and gf.get_num_threads() == before


def test_what_measurements_say() -> None:
    task = TaskSpec("f(x)", label="f", description="fast", num_threads=2)
    found = Measurement(2, [2.0, 4.0, 6.0, 8.0, 20.0], task)
    assert found.times == [1, 2, 3, 4, 10] and (found.median, found.mean, found.iqr) == (3, 4, 2)
    assert found.has_warnings and "WARNING: the IQR is 67% of the median" in repr(found)
    assert "IQR:    2.00 s (2.00 to 4.00)" in repr(found) and "2 threads" in repr(found)
    other = Measurement(1, [5.0, 5.0], TaskSpec("f(x)", label="f", description="slow"))
    merged = Measurement.merge([found, other, found])
    assert [len(m.times) for m in merged] == [10, 2]
    lines = str(Compare([found, other])).splitlines()
    assert lines[0].split() == ["f", "threads", "fast", "slow"]
    assert lines[2].split() == ["f(x)", "1", "5.00", "s"] and lines[3].split()[1:3] == ["2", "3.00"]
    assert other.significant_figures == 5 and select_unit(2e-5) == ("us", 1e-6)
    with pytest.raises(ValueError, match="raw_times is empty"):
        Measurement(1, [], task).median  # noqa: B018
    with pytest.raises(ValueError, match="takes a statement as text, not function"):
        Timer(lambda: None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no other language"):
        Timer("x", language="c++")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2))
        self.head = nn.Linear(100, 10)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        return self.head(self.conv(x).flatten(1))


@pytest.mark.parametrize("jit", [lambda f: f, gf.compile])
def test_products_are_counted_by_module(jit: Any, capsys: Any) -> None:
    model, x = Block(), gf.rand(2, 3, 12, 12)
    first, second = 2 * 2 * 144 * 8 * 27, 2 * 2 * 25 * 4 * 72
    head = 2 * 2 * 100 * 10
    step = jit(lambda x: model(x).square().sum().backward())
    with FlopCounterMode() as counter:
        step(x)
    assert counter.get_total_flops() == 2 * first + 3 * second + 3 * head
    counts = {name: sum(own.values()) for name, own in counter.get_flop_counts().items()}
    assert counts.pop("Global") == counts.pop("Block") == counter.get_total_flops()
    assert counts == {
        "Block.conv": 2 * first + 3 * second, "Block.conv.0": 2 * first,
        "Block.conv.2": 3 * second, "Block.head": 3 * head,
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert shown.split()[:4] == ["Module", "FLOP", "%", "Total"]
    assert "Block.conv" in shown and "Block.conv.0" not in shown
    assert "Block.conv.0" in counter.get_table(3)
    with FlopCounterMode(display=False) as counter, gf.no_grad():
        jit(model)(x)
    assert counter.get_total_flops() == first + second + head
    assert capsys.readouterr().out == ""


def test_what_is_made_of_products_is_counted_as_them() -> None:
    q = gf.rand(2, 4, 10, 8, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        out = F.scaled_dot_product_attention(q, q, q)
    product = 2 * 2 * 4 * 10 * 10 * 8
    assert counter.get_total_flops() == 2 * product
    with counter:
        out.sum().backward()
    assert 4 * product <= counter.get_total_flops() <= 5 * product
    with FlopCounterMode(display=False) as counter:
        gf.rand(3, 4) @ gf.rand(4) + gf.rand(3)
    assert counter.get_flop_counts() == {"Global": {"matmul": 24}}


def test_what_a_counter_cannot_count() -> None:
    with pytest.raises(TraceError, match="use it around the call"):
        gf.compile(lambda x: FlopCounterMode().__enter__() and x)(gf.ones(2))
    with pytest.raises(ValueError, match="no custom_mapping"):
        FlopCounterMode(custom_mapping={"f": len})
    with FlopCounterMode(display=False) as counter:
        with pytest.raises(GraphFlowError, match="counting already"):
            counter.__enter__()

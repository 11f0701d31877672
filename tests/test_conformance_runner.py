"""The conformance runner can fail: planted wrong results are found.  Needs no PyTorch."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance import differences, pool, table
from tests.conformance.compare import TOLERANCES, Array, compare
from tests.conformance.outcome import Missing, Outcome, guarded, time_limit


def array(values: Any, dtype: str = "float32") -> Array:
    return Array(np.asarray(values, dtype), dtype)


RIGHT = {"a": [array([1.0, np.nan, np.inf]), 3, 0.5], "b": array([[1, 2], [3, 4]], "int64")}


def test_equal_trees_have_no_difference() -> None:
    assert compare(RIGHT, RIGHT) == ""
    assert compare([array([1.0 + 1e-6])], (array([1.0]),)) == ""
    assert compare(array(np.zeros((0, 3))), array(np.zeros((0, 3)))) == ""


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        (array([1.0, 2.0]), array([1.0, 2.001]), "1 of 2 elements differ, first at [1]"),
        (array([1.0, np.nan]), array([1.0, 2.0]), "nan instead of 2.0"),
        (array([-np.inf]), array([np.inf]), "-inf instead of inf"),
        (array([1], "int64"), array([2], "int64"), "1 instead of 2"),
        (array([True], "bool"), array([False], "bool"), "True instead of False"),
        (array([1 + 1j], "complex64"), array([1 - 1j], "complex64"), "differ"),
        (array([1.0], "float64"), array([1.0]), "dtype float64 instead of float32"),
        (array([[1.0]]), array([1.0]), "shape [1, 1] instead of [1]"),
        (array(1.0), array([1.0]), "shape [] instead of [1]"),
        ([array([1.0])], array([1.0]), "1 items instead of float32[1]"),
        ([array([1.0])], [array([1.0]), array([1.0])], "1 items instead of 2 items"),
        ({"a": 1}, {"b": 1}, "instead of keys ['b']"),
        ([1, {"x": [True]}], [1, {"x": [False]}], "result[1]['x'][0]: True instead of False"),
        (1, True, "1 instead of True"),
        (0.5, 0.6, "0.5 instead of 0.6"),
        (None, array([1.0]), "None instead of float32[1]"),
    ],
)
def test_a_wrong_result_is_found(found: Any, expected: Any, words: str) -> None:
    assert words in compare(found, expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_tolerances_are_as_wide_as_they_say(dtype: str) -> None:
    relative, absolute = TOLERANCES[dtype]
    right = Array(np.array([64.0], dtype), dtype)
    for factor, passes in ((0.5, True), (3.0, False)):
        off = np.array([64.0 + factor * (64 * relative + absolute)]).astype(dtype)
        near = bool(off[0] != right.values[0])
        assert (compare(Array(off, dtype), right) == "") is passes or not near


def test_a_result_as_near_to_the_exact_one_as_the_reference_passes() -> None:
    exact = array([1.0, 2.0], "float64")
    reference, near, far = (array([1.0, 2.0 + e]) for e in (1e-3, -3e-3, -9e-3))
    assert compare(near, reference)
    assert compare(near, reference, exact) == ""
    assert compare(far, reference, exact)
    assert compare(array([1.0, np.nan]), reference, exact)


def outcome(passed: int, failed: int = 0, host: tuple[str, ...] = ()) -> Outcome:
    return Outcome(passed + failed, passed, host=list(host), failures=["wrong"] * failed)


def test_the_table_reads_back_what_it_wrote(tmp_path: Path) -> None:
    rows = table.merge(
        {},
        {
            ("add", "eager"): outcome(6),
            ("add", "compiled"): outcome(6, host=("b", "a")),
            ("linalg.svd:x", "grad"): outcome(2, 1),
            ("nonzero", "compiled"): Outcome(apart=3),
            ("nn.ReLU", "eager"): outcome(4),
            ("nn.functional.relu", "eager"): Outcome(),
            ("optim.SGD", "compiled"): outcome(9),
        },
    )
    table.write(rows, tmp_path / "table.txt")
    assert table.read(tmp_path / "table.txt") == rows
    assert rows["add"].host == ("a", "b")
    assert rows["nonzero"].cells["compiled"] == "apart"
    keys = ("nn.ReLU", "nn.functional.relu", "optim.SGD", "add", "models.cnn")
    assert [table.kind_of(k) for k in keys] == [
        "modules", "operations", "optimisers", "operations", "models",
    ]  # fmt: skip
    assert (
        "operations: eager 1/1 (100.0%), compiled 1/1 (100.0%), grad 0/1 (0.0%)"
        in (tmp_path / "table.txt").read_text()
    )


def test_the_table_may_only_grow() -> None:
    before = table.merge({}, {("a", "eager"): outcome(6), ("a", "compiled"): outcome(6),
                              ("b", "grad"): outcome(2, 4)})  # fmt: skip
    assert table.lost(before, before) == []
    worse = table.merge(before, {("a", "eager"): outcome(5, 1)})
    assert table.lost(before, worse) == ["a eager: 5/6, was 6/6"]
    assert table.lost(before, table.merge(before, {("a", "eager"): Outcome(apart=6)}))
    assert table.lost(before, table.merge(before, {("a", "compiled"): outcome(6, host=("x",))}))
    assert table.lost(before, {"b": before["b"]}) == ["a: no longer measured"]
    assert table.lost(before, table.merge(before, {("b", "grad"): outcome(1, 5)})) == []
    better = table.merge(before, {("b", "grad"): outcome(6), ("c", "eager"): outcome(1)})
    assert table.lost(before, better) == []
    assert table.gained(before, better) == ["b grad", "c eager"]


def test_a_sample_that_raises_hangs_or_is_missing_fails() -> None:
    def missing() -> str:
        raise Missing("graphflow.nothing")

    def wrong() -> str:
        raise ValueError("no")

    found = outcome(0)
    for check in (missing, wrong, lambda: "differs", lambda: ""):
        found.check("x", check)
    assert (found.total, found.passed, found.state) == (4, 1, "fail")
    assert found.failures == ["x: missing graphflow.nothing", "x: ValueError: no", "x: differs"]
    assert "test_conformance_runner" in guarded(wrong, verbose=True)
    with pytest.raises(Exception, match="took more than 1 s"), time_limit(1):
        time.sleep(100)


def _task(number: int) -> int:
    if number == 3:
        os._exit(7)
    if number == 5:
        raise ValueError("five")
    time.sleep(1000 if number == 4 else 0)
    return number * 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # threads of other tests
def test_lost_workers_cost_one_task_each() -> None:
    results = dict(pool.each(_task, range(8), jobs=2, seconds=4.0))
    assert results.pop(3) == "the process ended with code 7"
    assert results.pop(4) == "took more than 4 s"
    assert results.pop(5) == "ValueError: five"
    assert results == {n: 2 * n for n in (0, 1, 2, 6, 7)}


def test_the_page_of_differences_says_what_the_table_says() -> None:
    text = differences.PAGE.read_text()
    assert differences.page(table.read(), text) == text, "run python -m tests.conformance --update"


def test_what_fails_is_on_the_page_of_differences() -> None:
    rows = table.merge(
        {},
        {
            ("add", "eager"): outcome(6),
            ("add", "compiled"): outcome(5, 1),
            ("sub", "grad"): outcome(2, 1),
            ("sub", "compiled-grad"): outcome(2, 1),
            ("unique", "compiled"): Outcome(apart=3),
            ("linalg.eig", "compiled"): outcome(1, host=("eig",)),
        },
    )
    made = differences.page(rows, f"a\n{differences.START}\nold\n{differences.END}\nb\n")
    assert made.startswith("a\n") and made.endswith("\nb\n") and "old" not in made
    for words in ("`add` 5/6", "`sub` 2/3", "`unique`", "`eig`", "eager 1/1 (100.0%)"):
        assert made.count(words) == 1
    with pytest.raises(ValueError, match="lost the lines"):
        differences.page(rows, "a page without marks")

"""The conformance runner can fail: planted wrong results are found.  Needs no PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conformance.compare import TOLERANCES, Array, compare


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

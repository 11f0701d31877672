"""ONNX's own node tests through ``gf.onnx``: ``python -m tests.conformance.onnx_nodes``.

Every test is loaded and run by the interpreter, every ``COMPILED_EVERY``-th that passes is
compiled too.  ``onnx_nodes.txt`` lists those that fail, with the reason; it may only shrink.
Inputs that decide shapes are given as values when a model is loaded (such tests are counted).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests

import graphflow as gf
from graphflow.capture import captured_memory
from graphflow.onnx import load, load_graph
from graphflow.onnx.translate import NeedsValue
from tests.conformance.outcome import guarded

PATH = Path(__file__).parent / "onnx_nodes.txt"
SECONDS = 60
COMPILED_EVERY = 30
BFLOAT16 = 2.0**-7
"""Relative difference of neighbouring numbers, which is what operations in it are exact to."""


def main() -> int:
    """Run the tests; 1 when one fails that did not."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.onnx_nodes")
    parser.add_argument("--update", action="store_true", help="rewrite the list of failing tests")
    parser.add_argument("--tests", default="", help="only those whose name has this in it")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    cases = [c for c in load_model_tests(kind="node") if options.tests in c.name]
    failing, fixed, compiled = run(cases)
    passed = len(cases) - len(failing)
    print(f"onnx {onnx.__version__}: {passed} of {len(cases)} node tests pass "
          f"({passed / max(1, len(cases)):.1%}), {fixed} of them with inputs given as values; "
          f"{compiled} compiled too")  # fmt: skip
    if options.update:
        write(failing, passed, len(cases), fixed)
        return 0
    before = read()
    lost = {name: reason for name, reason in failing.items() if name not in before}
    for name, reason in lost.items():
        print(f"LOST {name}: {reason}")
    gained = [name for name in before if name not in failing and options.tests in name]
    if gained:
        print(f"newly passing; --update keeps them: {', '.join(gained)}")
    return int(bool(lost))


def run(cases: Sequence[Any]) -> tuple[dict[str, str], int, int]:
    """Why tests fail, how many pass with fixed inputs, how many were compiled."""
    failing: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for number, case in enumerate(cases):
        compiled = number % COMPILED_EVERY == 0
        problem = guarded(lambda c=case, k=compiled: check(c, k, counts), seconds=SECONDS)
        if problem:
            failing[case.name] = " ".join(problem.split())[:150]
    return failing, counts["fixed"], counts["compiled"]


def check(case: Any, compiled: bool, counts: Counter[str]) -> str:
    """What is wrong with one test; nothing if it passes."""
    gf.manual_seed(0)  # what tests of random operators expect is another generator's
    fixed = False
    for inputs, outputs in case.data_sets:
        given = [plain(x) for x in inputs]
        graph, rest, values = loaded(case.model, given)
        fixed |= bool(values)
        memory = captured_memory(graph)
        assert memory is not None
        state = {n.attrs["name"]: c.value for n, c in zip(graph.state, memory.cells)}
        problem = differs(graph.run(*rest, state=state), flat(outputs), case)
        if problem:
            return problem
        if compiled and rest:
            shapes = shapes_of(case.model, given, values)
            found = load(case.model, values=values, shapes=shapes)(*rest)
            many = found if isinstance(found, tuple) else (found,)
            problem = differs([t.numpy() for t in many], flat(outputs), case)
            if problem:
                return f"compiled: {problem}"
            counts["compiled"] += 1
    counts["fixed"] += fixed
    return ""


def loaded(model: Any, inputs: Sequence[Any]) -> tuple[Any, list[Any], dict[str, Any]]:
    """The graph, the inputs it takes, and those that had to be given as values."""
    names = [i.name for i in model.graph.input]
    tensors = {i.name for i in model.graph.input if i.type.WhichOneof("value") == "tensor_type"}
    values = {n: x for n, x in zip(names, inputs) if n not in tensors or x is None}
    while True:
        try:
            graph = load_graph(model, values=values, shapes=shapes_of(model, inputs, values))
        except NeedsValue as error:
            new = [n for n in error.inputs if n in names and n not in values]
            if not new:
                raise
            values |= {n: inputs[names.index(n)] for n in new}
        else:
            return graph, [x for n, x in zip(names, inputs) if n not in values], values


def shapes_of(model: Any, inputs: Sequence[Any], values: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of inputs that are arrays."""
    pairs = zip(model.graph.input, inputs)
    return {i.name: x.shape for i, x in pairs if i.name not in values}


def plain(value: Any) -> Any:
    """A value of a test as arrays and lists."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return [plain(v) for v in value] if isinstance(value, list) else value


def flat(values: Any) -> list[Any]:
    """The arrays among expected results, sequences taken apart."""
    found: list[Any] = []
    for value in map(plain, values):
        found += flat(value) if isinstance(value, list) else [np.asarray(value)]
    return [a for a in found if a.dtype != object or a.item() is not None]


def differs(found: Sequence[Any], expected: Sequence[Any], case: Any) -> str:
    """How results differ from the expected ones."""
    if len(found) != len(expected):
        return f"{len(found)} results instead of {len(expected)}"
    for ours, theirs in zip(found, expected):
        if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
            return f"{ours.dtype}{ours.shape} instead of {theirs.dtype}{theirs.shape}"
        if theirs.dtype.kind not in "fcV":
            same = np.array_equal(ours, theirs)
        else:
            half = theirs.dtype.itemsize == 2
            rtol = BFLOAT16 if theirs.dtype.name == "bfloat16" else case.rtol
            kind = theirs.dtype if theirs.dtype.kind == "c" else np.float64
            wide = [a.astype(kind) for a in (ours, theirs)]
            atol = max(case.atol, 1e-3 if half else 0)
            same = np.allclose(*wide, rtol=rtol, atol=atol, equal_nan=True)
        if not same:
            return "values differ"
    return ""


def read() -> dict[str, str]:
    """The tracked list: reasons by test."""
    lines = PATH.read_text().splitlines() if PATH.exists() else []
    pairs = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {name: reason for name, _, reason in pairs}


def write(failing: dict[str, str], passed: int, total: int, fixed: int) -> None:
    """Rewrite the list."""
    head = [
        f"# Node tests of onnx {onnx.__version__} that gf.onnx.load does not pass, and why:",
        f"# {passed} of {total} pass ({passed / total:.1%}), {fixed} of them with inputs that",
        "# decide shapes given as values.",
        "# Written by python -m tests.conformance.onnx_nodes --update.",
    ]
    PATH.write_text("\n".join([*head, *(f"{n}: {r}" for n, r in sorted(failing.items()))]) + "\n")


if __name__ == "__main__":
    sys.exit(main())

"""Stand-alone files: they run without GraphFlow and give the same numbers."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.capture import captured_memory
from graphflow.cli.main import main
from graphflow.errors import GraphFlowError
from graphflow.ir import build
from graphflow.ir.graph import Graph
from graphflow.ir.op import lookup
from graphflow.ir.types import TensorType, dtype_named
from graphflow.passes.pipeline import PIPELINE, run_pipeline
from graphflow.records import replace
from graphflow.standalone import export_python
from graphflow.standalone.spelling import wrapped
from graphflow.standalone.writer import Exported

RUNNER = """
import importlib.util, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("graphflow", "scipy", "ml_dtypes", "torch"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
script, steps = sys.argv[1], int(sys.argv[2])
spec = importlib.util.spec_from_file_location("program", script)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
given = np.load(script + ".npz")
state = module.read_weights(script[:-3] + ".safetensors")
run = getattr(module, given["name"].item())
inputs = [given[f"input{i}"] for i in range(len(given.files) - 1)]
for _ in range(steps):
    result = run(state, *inputs)
results = result if isinstance(result, tuple) else (result,)
np.savez(script + ".out.npz", **{f"out{i}": r for i, r in enumerate(results)},
         **{f"state:{k}": v for k, v in state.items()})
"""


def run_alone(script: Path, name: str, inputs: list, steps: int = 1) -> tuple[list, dict]:
    """Results and state after some steps of an exported file, in a process without GraphFlow."""
    arrays = {f"input{i}": x.numpy() for i, x in enumerate(inputs)}
    np.savez(f"{script}.npz", name=name, **arrays)
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUNNER, str(script), str(steps)], capture_output=True,
        text=True, timeout=300, cwd=script.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = np.load(f"{script}.out.npz")
    outputs = [made[f"out{i}"] for i in range(sum(k.startswith("out") for k in made.files))]
    return outputs, {k[6:]: made[k] for k in made.files if k.startswith("state:")}


class FakeNumba(types.ModuleType):
    """Numba's two decorators in plain Python: what the text means, without compiling it."""

    def __init__(self) -> None:
        super().__init__("numba")

    def njit(self, **options):
        return lambda function: function

    def vectorize(self, signature, cache):
        result = signature.partition("(")[0].replace("boolean", "bool")

        def over_arrays(function):
            def call(*arrays):
                every = np.broadcast_arrays(*arrays)
                out = np.empty(every[0].shape, result)
                for place in np.ndindex(out.shape):
                    out[place] = function(*(array[place] for array in every))
                return out[()]

            return call

        return over_arrays


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch):
    """Runs the text of a graph on arrays, without Numba."""

    def run(graph: Graph, *arrays):
        made = Exported(run_pipeline(graph, PIPELINE[:-1])[-1].graph, state_of(graph), {}, "x")
        monkeypatch.setitem(sys.modules, "numba", FakeNumba())
        scope: dict = {}
        exec(compile(made.text, "exported.py", "exec"), scope)
        monkeypatch.undo()
        state = {name: np.array(value) for name, value in made.arrays.items()}
        return scope[made.name](state, *arrays)

    return run


def state_of(graph: Graph) -> dict:
    captured = captured_memory(graph)
    cells = captured.cells if captured is not None else ()
    return {n.attrs["name"]: c.value for n, c in zip(graph.state, cells)}


def close(found, expected) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    scale = np.abs(expected).max(initial=0) if expected.size else 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * float(scale) + 1e-7)


def train_step():
    """A model with dropout, layer norm, an embedding and Adam."""
    gf.manual_seed(3)
    model = nn.Sequential(
        nn.Embedding(11, 6), nn.LayerNorm(6), nn.Flatten(), nn.Linear(24, 8), nn.GELU(),
        nn.Dropout(0.25), nn.Linear(8, 3),
    )  # fmt: skip
    opt = optim.Adam(model.parameters(), lr=0.02)

    def step(tokens, labels):
        opt.zero_grad()
        loss = F.cross_entropy(model(tokens), labels)
        loss.backward()
        opt.step()
        return loss

    return step


def test_a_training_step_runs_alone_and_gives_the_same_numbers(tmp_path: Path) -> None:
    inputs = [gf.randint(0, 11, (5, 4)), gf.randint(0, 3, (5,))]
    program = gf.compile(gf.trace(train_step(), *inputs))
    script, weights = export_python(program, tmp_path / "step.py")
    assert weights == tmp_path / "step.safetensors"
    outputs, state = run_alone(script, "step", inputs, steps=3)
    for _ in range(3):
        expected = program(*inputs)
    close(outputs[0], expected.numpy())
    for name, value in program.state_dict().items():
        if name in state:
            close(state[name], value.numpy())
    text = script.read_text()
    assert "lr=0.02" in text and "# model.3, test_standalone.py:" in text
    assert "import graphflow" not in text and "vm." not in text
    assert max(map(len, text.splitlines())) <= 120
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            known = {"json", "struct", "sys", "time", "math", "functools", "itertools"}
            assert {n.split(".")[0] for n in names} <= {*known, "numpy", "numba"}


def recurrent(x, w):
    """Loops, branches, views, sorting, complex numbers, a host operation and several results."""
    h, rows = gf.scan(lambda h, row: ((h * 0.5 + row @ w).tanh(),) * 2, gf.zeros(3), x)
    big = gf.cond(h.sum() > 0, lambda t: t * 2, lambda t: -t, h)
    count, _ = gf.while_loop(
        lambda v: (v[1].abs().sum() > 0.5) & (v[0] < 20), lambda v: (v[0] + 1, v[1] * 0.7),
        (gf.tensor(0), big),
    )  # fmt: skip
    order = rows.sort(dim=0)
    spectrum = gf.fft.rfft(x[:, 0]).abs()
    solved = gf.linalg.solve(gf.eye(3) * 2 + w.t() @ w, big)
    return rows[::2].t(), big, count, order.values, order.indices, spectrum, solved, x.cumsum(0)


def test_loops_branches_and_odd_operations(interpreted) -> None:
    gf.manual_seed(5)
    x, w = gf.randn(6, 3), gf.randn(3, 3)
    outputs = interpreted(gf.trace(recurrent, x, w), x.numpy(), w.numpy())
    for found, expected in zip(outputs, recurrent(x, w), strict=True):
        close(found, expected.numpy())


def test_convolutions_pool_and_large_constants(interpreted) -> None:
    gf.manual_seed(6)
    table = np.arange(40, dtype=np.float32).reshape(8, 5)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())

    def run(x):
        return net(x) @ gf.ones(64, 8) @ gf.from_numpy(table) + F.avg_pool2d(x, 4).mean()

    with gf.no_grad():
        x = gf.randn(2, 1, 8, 8)
        close(interpreted(gf.trace(run, x), x.numpy()), run(x).numpy())


ELEMENTWISE = (
    "abs neg exp log1p expm1 sqrt rsqrt sin cos tanh sigmoid erf phi relu floor ceil round sign "
    "reciprocal add sub mul div pow maximum minimum atan2 eq lt where remainder floor_divide"
).split()


def test_every_usual_operation_means_the_same(interpreted) -> None:
    """Each by itself and in a group, over floats and integers, NaN and infinities included."""
    rng = np.random.default_rng(0)
    leaves, outputs, arrays = [], [], []
    for name in ELEMENTWISE:
        op = lookup(name)
        for kind in ("f32", "f64", "i64"):
            dtype = dtype_named(kind)
            if kind not in op.tests.dtypes:
                continue
            values = rng.normal(size=12).round(2) * 3
            if kind != "i64":
                values[:4] = [np.nan, np.inf, -np.inf, -0.0]
            arity = len(op.tests.samples[0].inputs) if op.tests.samples else _arity(op)
            nodes = []
            for i in range(arity):
                t = dtype_named("bool") if name == "where" and i == 0 else dtype
                nodes.append(build.input_node(f"x{len(leaves)}", TensorType(t, (12,))))
                leaves.append(nodes[-1])
                arrays.append((np.roll(values, i) + (i and 0.5)).astype(t.numpy))
            made = build.emit(op, *nodes)
            outputs.append(made)
            outputs.append(build.emit("logical_not" if made.dtype.kind == "bool" else "neg", made))
    graph = Graph(tuple(leaves), tuple(outputs[1::2]), name="all_of_them")
    found = interpreted(graph, *arrays)
    for node, one, other in zip(graph.outputs, found, graph.run(*arrays), strict=True):
        assert one.dtype == other.dtype, node.inputs[0]
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=str(node.inputs[0]))


def _arity(op) -> int:
    return {"where": 3}.get(op.name) or (2 if isinstance(op.vjp, tuple) and len(op.vjp) == 2 else
                                         2 if op.name in ("eq", "lt") else 1)  # fmt: skip


def test_equal_work_is_one_function_and_names_are_safe(interpreted) -> None:
    def run(np, state):
        lambda_ = (np * 2).tanh() + 1
        return (state * 2).tanh() + 1, lambda_

    graph = gf.trace(run, gf.TensorSpec((4,)), gf.TensorSpec((4,)))
    assert Exported(graph, {}, {}, "x").text.count("@vectorize") == 1
    x = np.linspace(-1, 1, 4, dtype=np.float32)
    for one, other in zip(interpreted(graph, x, x * 2), graph.run(x, x * 2), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    with pytest.raises(GraphFlowError, match="symbolic"):
        export_python(gf.trace(lambda x: x + 1, gf.TensorSpec(("n",))), tmp_path / "x.py")
    with pytest.raises(GraphFlowError, match="bfloat16"):
        export_python(
            gf.trace(lambda x: x + 1, gf.TensorSpec((2,), gf.bfloat16)), tmp_path / "x.py"
        )
    with pytest.raises(GraphFlowError, match=r"ends in \.py"):
        export_python(gf.trace(lambda x: x + 1, gf.TensorSpec((2,))), tmp_path / "x.txt")
    with pytest.raises(GraphFlowError, match="callback"):
        export_python(gf.trace(lambda x: gf.print(x), gf.TensorSpec((2,))), tmp_path / "x.py")
    assert not list(tmp_path.iterdir())


def test_long_statements_are_wrapped_and_mean_the_same() -> None:
    line = (
        "    value = state['a(b, c' + \"]\"][function(1, (2, 3), [4, 5], name='x, y')][(1 + 2) * 3]"
    )
    for width in (30, 50, 70):
        text = wrapped(line, width)
        assert ast.dump(ast.parse(text.strip())) == ast.dump(ast.parse(line.strip()))


def test_the_command_writes_files(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "tiny.py").write_text(
        "import graphflow as gf\n"
        "def build():\n    return (lambda x: (x * 2).exp()), (gf.TensorSpec((3,)),)\n"
    )
    monkeypatch.chdir(tmp_path)
    for form, name in (("python", "tiny_exported.py"), ("gf", "tiny.gf")):
        assert main(["export", "tiny.py", "--to", form, "--json"]) == 0
        made = json.loads(capsys.readouterr().out)
        assert made["format"] == form and name in made["files"]
    assert main(["export", "tiny.py", "--to", "python"]) == 0
    assert "tiny_exported.safetensors" in capsys.readouterr().out
    x = gf.randn(3)
    close(gf.load_program(tmp_path / "tiny.gf")(x).numpy(), (x * 2).exp().numpy())


def test_names_cannot_end_a_comment_or_a_docstring(tmp_path: Path) -> None:
    evil = '"""\nraise SystemExit(7)\n"""\r\\'
    specs = gf.TensorSpec((2,), name=evil), gf.TensorSpec((2,), name="b")
    graph = replace(gf.trace(lambda a, b: gf.tanh(a) * b, *specs), name=evil)
    script, _ = export_python(graph, tmp_path / "it's odd.py")
    functions = [n for n in ast.parse(script.read_text()).body if not isinstance(n, ast.Import)]
    assert not any(isinstance(node, ast.Raise) for node in functions)
    subprocess.run([sys.executable, str(script)], check=True, timeout=300, cwd=tmp_path)

"""Frozen programs: saved with their state, loaded without a trace, and safe to open."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import flags, nn, optim
from graphflow.codegen.schedule_form import from_bytes, from_data, to_bytes, to_data
from graphflow.errors import CompileError, GraphFlowError
from graphflow.program import Program

ROOT = Path(__file__).parent.parent


def make_step():
    gf.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
    opt = optim.Adam(model.parameters(), lr=0.05)

    @gf.compile
    def step(x, y):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    return model, opt, step


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A training step after one call, its data, and its file."""
    model, opt, step = make_step()
    gf.manual_seed(1)
    x, y = gf.randn(4, 6), gf.randint(0, 3, (4,))
    step(x, y)
    path = tmp_path_factory.mktemp("frozen") / "step.gf"
    step.programs[0].save(path)
    return model, opt, step, (x, y), path


def test_a_loaded_step_trains_on_as_the_saved_one_does(trained) -> None:
    _, _, step, data, _ = trained
    path = trained[-1].with_name("own.gf")
    program = step.programs[0]
    program.save(path)
    loaded = gf.load_program(path)
    assert loaded.settings["lr"] == 0.05
    held = {k: v.numpy().copy() for k, v in program.state_dict().items()}
    for name, value in loaded.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), held[name])
    expected = [step(*data).item() for _ in range(3)]
    assert [loaded(*data).item() for _ in range(3)] == expected
    for name, value in program.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), loaded.state_dict()[name].numpy())
    loaded.settings["lr"] = 0.0
    before = loaded.state_dict()["model.0.weight"].numpy().copy()
    loaded(*data)
    np.testing.assert_array_equal(loaded.state_dict()["model.0.weight"].numpy(), before)
    assert loaded.graph.same_as(program.graph)
    assert "simplify" in str(loaded.explain())


CHILD = """
import sys, numpy as np, graphflow as gf
program = gf.load_program(sys.argv[1], trusted=len(sys.argv) > 2)
x = np.load(sys.argv[1] + ".npz")
print(program(x["x"], x["y"]).item())
unwanted = ("numba", "graphflow.passes.pipeline", "graphflow.codegen.lower")
print(sorted(name for name in sys.modules if name in unwanted))
"""


def run_child(path: Path, cache: Path | None, *options: str) -> tuple[float, str]:
    environment = dict(os.environ)
    if cache is not None:
        environment["GRAPHFLOW_CACHE_DIR"] = str(cache)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), *options], capture_output=True, text=True,
        timeout=300, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    number, modules = done.stdout.splitlines()
    return float(number), modules


def test_other_processes_neither_trace_nor_compile(trained, tmp_path: Path) -> None:
    _, _, step, (x, y), _ = trained
    path = tmp_path / "native.gf"
    step.programs[0].save(path, native=True)
    np.savez(f"{path}.npz", x=x.numpy(), y=y.numpy())
    expected = gf.load_program(path)(x, y).item()
    assert run_child(path, None) == (expected, "[]")
    assert run_child(path, tmp_path / "empty", "trusted") == (expected, "[]")


def test_without_a_cache_it_is_made_again_from_the_graph(trained, tmp_path: Path) -> None:
    _, _, _, data, path = trained
    expected = gf.load_program(path)(*data).item()
    with flags.override(cache_dir=str(tmp_path)):
        assert gf.load_program(path)(*data).item() == expected
        assert list(tmp_path.glob("*.plan"))
        assert gf.load_program(path, trusted=True)(*data).item() == expected


def test_symbolic_sizes_and_what_is_assumed_of_them(tmp_path: Path) -> None:
    weights = gf.randn(5, 2)

    def run(x):
        y = x @ weights
        return y * 2 if x.shape[0] >= 3 else y

    compiled = gf.compile(run, dynamic={"x": {0: "batch"}})
    compiled(gf.randn(8, 5))
    compiled.programs[0].save(tmp_path / "run.gf")
    loaded = gf.load_program(tmp_path / "run.gf")
    for size in (8, 4, 17):
        x = gf.randn(size, 5)
        np.testing.assert_allclose(loaded(x).numpy(), run(x).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(GraphFlowError, match="batch >= 3"):
        loaded(gf.randn(2, 5))


def test_loops_branches_and_host_operations(tmp_path: Path) -> None:
    table = gf.arange(6, dtype=gf.float32)

    def run(x):
        total = gf.scan(lambda h, row: (h * 0.5 + row, h), gf.zeros(2), x)[0]
        chosen = gf.cond(total.sum() > 0, lambda t: t + 1, lambda t: t * 3, total)
        return gf.linalg.solve(gf.eye(2) * 2, chosen), table[gf.tensor([1, 4])]

    program = gf.compile(gf.trace(run, gf.TensorSpec((4, 2))))
    x = gf.randn(4, 2)
    program.save(tmp_path / "run.gf")
    for one, other in zip(gf.load_program(tmp_path / "run.gf")(x), run(x), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-6)
    schedule = program.template
    data, arrays = to_data(schedule)
    again = from_data(json.loads(json.dumps(data)), arrays)
    assert str(again).splitlines()[:4] == str(schedule).splitlines()[:4]
    assert str(again) == str(from_bytes(to_bytes(schedule)))
    with pytest.raises(CompileError, match="no schedule"):
        from_data({**data, "kernels": []}, arrays)


# ---- what cannot be saved, and files that are no programs --------------------------------


def test_what_cannot_be_saved_says_why(tmp_path: Path) -> None:
    noisy = gf.compile(gf.trace(lambda x: gf.print(x), gf.TensorSpec((2,))))
    with pytest.raises(GraphFlowError, match=r"gf\.print.*no file can hold"):
        noisy.save(tmp_path / "x.gf")
    table = gf.ones(2)
    graph = gf.trace(lambda x: x + table, gf.TensorSpec((2,)))
    empty = Program.from_graph(gf.Graph.parse(str(graph)))
    with pytest.raises(GraphFlowError, match="load_state_dict"):
        empty.save(tmp_path / "x.gf")
    views = gf.compile(lambda x: (x * 2).t())
    views(gf.ones(2, 3))
    with pytest.raises(GraphFlowError, match=r"save gf\.compile\(gf\.trace"):
        views.programs[0].save(tmp_path / "x.gf")
    assert not list(tmp_path.iterdir())


def parts_of(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write(path: Path, header: dict, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_truncated_files_are_one_clear_error(trained, tmp_path: Path) -> None:
    content = trained[-1].read_bytes()
    rng = np.random.default_rng(0)
    broken = tmp_path / "broken.gf"
    for size in [0, 5, 8, 100, len(content) - 1, *rng.integers(9, len(content), 12)]:
        broken.write_bytes(content[: int(size)])
        with pytest.raises(GraphFlowError, match=r"broken\.gf: "):
            gf.load_program(broken)


def test_foreign_and_future_files(trained, tmp_path: Path) -> None:
    other = tmp_path / "other.gf"
    gf.save({"w": gf.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(GraphFlowError, match=r"weights are read with gf\.load"):
        gf.load_program(tmp_path / "w.safetensors")
    other.write_text("import os")
    with pytest.raises(GraphFlowError, match=r"other\.gf"):
        gf.load_program(other)
    header, data = parts_of(trained[-1])
    header["__metadata__"]["version"] = "2"
    write(other, header, data)
    with pytest.raises(GraphFlowError, match=r"version '2'.*reads versions up to 1"):
        gf.load_program(other)
    with pytest.raises(FileNotFoundError):
        gf.load_program(tmp_path / "none.gf")


def change_state_type(meta: dict) -> None:
    facts = json.loads(meta["program"])
    name, _ = next(row for row in facts["face"]["state"] if "weight" in row[0])
    facts["face"]["state"] = [
        [n, "f32[2]"] if n == name else [n, t] for n, t in facts["face"]["state"]
    ]
    meta["program"] = json.dumps(facts)


def shrink_inputs(meta: dict) -> None:
    facts = json.loads(meta["program"])
    facts["face"]["inputs"][0][1] = "f32[1,1]"
    meta["program"] = json.dumps(facts)


def grow_extents(meta: dict) -> None:
    """What only a trusted file may say: the schedule is not even looked at."""
    meta["schedule"] = "no schedule"


def break_graph(meta: dict) -> None:
    meta["graph"] = meta["graph"].replace('"tanh"', '"nonsense"')


def wrong_numbers(meta: dict) -> None:
    facts = json.loads(meta["program"])
    facts["numbers"] = ["a"]
    meta["program"] = json.dumps(facts)


@pytest.mark.parametrize(
    "change",
    [change_state_type, shrink_inputs, break_graph, wrong_numbers],
    ids=lambda f: f.__name__,
)
def test_files_whose_parts_disagree_are_refused(trained, tmp_path: Path, change) -> None:
    header, data = parts_of(trained[-1])
    change(header["__metadata__"])
    path = tmp_path / "odd.gf"
    write(path, header, data)
    with pytest.raises(GraphFlowError, match=r"odd\.gf: "):
        gf.load_program(path)


def test_the_schedule_of_a_file_counts_only_if_trusted(trained, tmp_path: Path) -> None:
    header, data = parts_of(trained[-1])
    grow_extents(header["__metadata__"])
    path = tmp_path / "odd.gf"
    write(path, header, data)
    expected = gf.load_program(trained[-1])(*trained[3]).item()
    assert gf.load_program(path)(*trained[3]).item() == expected
    with pytest.raises(GraphFlowError, match=r"odd\.gf: "):
        gf.load_program(path, trusted=True)

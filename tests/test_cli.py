"""The graphflow command: output, errors and exit codes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from graphflow import flags
from graphflow.cli import bench
from graphflow.cli.main import main
from graphflow.tables import duration, quantity, significant, table
from graphflow.utils.progress import Progress
from graphflow.version import __version__

ROOT = pathlib.Path(__file__).parent.parent

MODEL = """
import graphflow as gf
import helper

weight = gf.tensor([1.0, 2.0, 3.0], requires_grad=True)

def step(x):
    loss = helper.twice((weight * x).sum())
    loss.backward()
    with gf.no_grad():
        weight.sub_(weight.grad * 0.1)
    weight.grad = None
    return loss

def build():
    return step, (gf.TensorSpec((3,)),)

def other():
    return (lambda x: gf.tanh(x)), gf.TensorSpec((4, 5))

def wrong():
    return 3

not_a_function = 5
"""


@pytest.fixture
def model(tmp_path: pathlib.Path) -> str:
    (tmp_path / "helper.py").write_text("def twice(x):\n    return x * 2\n")
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return str(path)


def graphflow(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "graphflow", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=300,
    )


def test_info_says_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in ("graphflow", __version__, "numba", "cpu", "threads", "cache", "cuda", "flags"):
        assert word in out


def test_info_does_not_import_numba() -> None:
    code = (
        "import sys; from graphflow.cli.main import main; main(['info']); "
        "sys.exit('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_inspect_prints_every_stage_and_kernel(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", model]) == 0
    out = capsys.readouterr().out
    assert "# traced:" in out and "# file:" in out and "def " in out and "f32[3]" in out


def test_inspect_one_stage_another_builder_and_files(
    model: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", f"{model}:other", "--stage", "traced"]) == 0
    out = capsys.readouterr().out
    assert "tanh" in out and "f32[4,5]" in out and "# file:" not in out
    assert main(["inspect", f"{model}:other", "--stage", "kernels"]) == 0
    source = capsys.readouterr().out
    assert "# file:" in source
    folder = tmp_path / "out"
    assert main(["inspect", model, "--output", str(folder)]) == 0
    paths = capsys.readouterr().out.split()
    assert sorted(paths) == sorted(str(p) for p in folder.rglob("*") if p.is_file())
    assert any("traced" in path for path in paths) and list((folder / "kernels").iterdir())


def test_bench_prints_a_comparison_or_json(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", model, "--repeat", "5"]) == 0
    assert "static" in capsys.readouterr().out
    assert main(["bench", model, "--repeat", "5", "--json"]) == 0
    assert "speedup" in json.loads(capsys.readouterr().out)


def test_cache_shows_and_clears(
    model: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kernels"
    assert graphflow("inspect", model, GRAPHFLOW_CACHE_DIR=str(folder)).returncode == 0
    count = len(list(folder.iterdir()))
    assert {".o", ".py"} <= {path.suffix for path in folder.iterdir()}

    def said(*options: str) -> str:
        with flags.override(cache_dir=str(folder)):
            assert main(["cache", *options]) == 0
        return capsys.readouterr().out

    assert str(folder) in said() and "0 B" not in said()
    assert f"removed {count} files" in said("--clear")
    assert "0 B" in said() and not list(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["inspekt"], "invalid choice"),
        (["cache", "--cleer"], "did you mean --clear?"),
        (["info", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["inspect"], "FILE"),
    ],
)
def test_wrong_usage_is_one_clear_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (":missing", "no function missing()"),
        (":not_a_function", "no function not_a_function()"),
        (":wrong", r"must return (step, specs)"),
        ("x", "no such file"),
    ],
)
def test_a_wrong_model_file_is_one_clear_error(
    model: str, suffix: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", model + suffix]) == 1
    assert message in capsys.readouterr().err


def test_an_unknown_stage_names_the_known_ones(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", model, "--stage", "nonsense"]) == 1
    err = capsys.readouterr().err
    assert "'nonsense'" in err and "traced" in err


def test_a_misspelt_environment_flag_is_one_clear_error() -> None:
    done = graphflow("info", GRAPHFLOW_DEBGU="1")
    assert done.returncode != 0 and "did you mean GRAPHFLOW_DEBUG" in done.stderr


# ---- what the command prints with -------------------------------------------------------


def test_table_aligns() -> None:
    assert table(["a", "long"], [["xyz", 1], ["b", 22]]).splitlines() == [
        "a    long",
        "---  ----",
        "xyz     1",
        "b      22",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.5, "1.50"), (0.0123, "0.0123"), (345.6, "346"), (0.000456, "0.000456")],
)
def test_significant(value: float, text: str) -> None:
    assert significant(value) == text


def test_units() -> None:
    assert [duration(s) for s in (2.5, 0.0123, 4.56e-5, 3e-8)] == [
        "2.50 s",
        "12.3 ms",
        "45.6 µs",
        "0.0300 µs",
    ]
    assert [quantity(b) for b in (12, 3_400, 5_600_000, 7.8e9)] == [
        "12 B",
        "3.40 kB",
        "5.60 MB",
        "7.80 GB",
    ]


def test_progress_writes_one_line_without_a_terminal(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "out"
    with open(path, "w+") as stream:
        bar = Progress(range(5), "work", stream=stream)
        seen = []
        for item in bar:
            bar.note = f"at {item}"
            seen.append(item)
    lines = path.read_text().splitlines()
    assert seen == [0, 1, 2, 3, 4] and len(lines) == 1
    assert "work" in lines[0] and "5/5" in lines[0] and "at 4" in lines[0]


def test_progress_of_unknown_length(tmp_path: pathlib.Path) -> None:
    with open(tmp_path / "out", "w+") as stream:
        assert list(Progress(iter("abc"), stream=stream)) == ["a", "b", "c"]


def test_bench_without_a_file_runs_the_suite_of_a_checkout(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "_importable", lambda: False)
    assert main(["bench"]) == 1
    assert "in GraphFlow's repository" in capsys.readouterr().err
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    (tmp_path / "benchmarks" / "suite.py").write_text("import sys; sys.exit(len(sys.argv))")
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--quick"])
    assert ended.value.code == 2
    for wrong in (["bench", "--json"], ["bench", "model.py", "--quick"]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)

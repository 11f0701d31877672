"""graphflow inspect and diff: what they choose, as text and as JSON."""

import io
import json
from pathlib import Path

import pytest

import graphflow as gf
from graphflow.cli import terminal
from graphflow.cli.main import main
from graphflow.cli.subject import Subject
from graphflow.ir.graph import Graph

MODEL = """
import graphflow as gf

def build():
    return (lambda x: gf.tanh(x * 1.0).sum() + gf.exp(x)), gf.TensorSpec((4, 5), name="x")

def other():
    return (lambda x: gf.tanh(x).sum() - gf.exp(x)), gf.TensorSpec((4, 5), name="x")
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return str(path)


def out(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 1
    text = capsys.readouterr().err
    assert "Traceback" not in text and text.startswith("graphflow: ")
    return text


def test_the_nodes_of_an_operation(model: str, capsys) -> None:
    text = out(capsys, "inspect", model, "--op", "tanh")
    assert "# traced: 1 of tanh" in text and "# fuse: 1 of tanh" in text
    assert text.count("tanh(") >= 2 and "exp(" not in text and "model.py:5" in text
    only = out(capsys, "inspect", model, "--op", "tanh", "--stage", "traced")
    assert only.count("# ") == 2 and "fuse" not in only
    rows = json.loads(out(capsys, "inspect", model, "--op", "tanh", "--json"))
    assert {row["op"] for row in rows} == {"tanh"}
    assert {row["stage"] for row in rows} >= {"traced", "fuse"}
    inside = [row for row in rows if row["stage"] == "fuse"]
    assert all(row["path"].endswith("body/") for row in inside) and inside


def test_kernels_by_name_and_by_beginning(model: str, capsys) -> None:
    kernels = json.loads(out(capsys, "inspect", model, "--stage", "kernels", "--json"))
    name = kernels[0]["name"]
    text = out(capsys, "inspect", model, "--kernel", name)
    assert f"def {name}(" in text and "1 calls a step" in text and "# file:" in text
    found = json.loads(out(capsys, "inspect", model, "--kernel", name[:3], "--json"))
    assert name in {kernel["name"] for kernel in found}
    assert all(kernel["name"].startswith(name[:3]) for kernel in found)


def test_everything_as_json_is_the_programs_data(model: str, capsys) -> None:
    data = json.loads(out(capsys, "inspect", model, "--json"))
    assert (data["format"], data["version"]) == ("graphflow-program", 1)
    steps = json.loads(out(capsys, "inspect", model, "--stage", "schedule", "--json"))
    assert [s["name"] for s in steps] == [s["name"] for s in data["steps"]]


def test_a_stage_as_json_is_a_graph_that_diff_reads(model: str, tmp_path, capsys) -> None:
    for stage in ("traced", "simplify"):
        text = out(capsys, "inspect", model, "--stage", stage, "--json")
        (tmp_path / f"{stage}.json").write_text(text)
        assert Graph.from_json(text).verify()
    files = str(tmp_path / "traced.json"), str(tmp_path / "simplify.json")
    text = out(capsys, "diff", *files)
    assert "removed" in text.splitlines()[0] and "\n- " in text and "\x1b" not in text
    data = json.loads(out(capsys, "diff", *files, "--json"))
    assert data["removed"] and data["summary"] in text
    same = out(capsys, "diff", files[0], f"{model}@traced")
    assert "0 changed, 0 removed, 0 added" in same and len(same.splitlines()) == 1
    (tmp_path / "graph.ir").write_text(str(Graph.from_json((tmp_path / "traced.json").read_text())))
    assert "0 removed" in out(capsys, "diff", files[0], str(tmp_path / "graph.ir"), "--exit-code")
    with pytest.raises(SystemExit) as caught:
        main(["diff", *files, "--exit-code"])
    assert caught.value.code == 1
    capsys.readouterr()
    changed = out(capsys, "diff", f"{model}@traced", f"{model}:other@traced")
    assert "sub(" in changed and "add(" in changed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "trased"], "no stage 'trased'; did you mean 'traced'? (the stages are traced"),
        (["--stage", "trased", "--json"], "did you mean 'traced'?"),
        (["--op", "tanhh"], "unknown operation 'tanhh'; did you mean tanh"),
        (["--op", "gather"], "there is no operation 'gather' (the operations are "),
        (["--op", "gather", "--json"], "there is no operation 'gather' (the operations are "),
        (["--op", "tanh", "--stage", "kernels"], "there is no stage 'kernels'"),
        (["--kernel", "nonsense"], "there is no kernel 'nonsense' (the kernels are "),
    ],
)
def test_unknown_names_are_errors_with_suggestions(
    model: str, capsys, arguments: list[str], message: str
) -> None:
    assert message in failure(capsys, "inspect", model, *arguments)


def test_what_diff_cannot_read(model: str, tmp_path: Path, capsys) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"format": "graphflow-graph", "version": 9}')
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    empty = tmp_path / "empty"
    empty.write_text("")
    for argument, message in [
        (str(bad), "reads versions up to 1"),
        (str(binary), "neither JSON nor text"),
        (str(empty), "empty: "),
        (str(tmp_path / "none.json"), "No such file"),
        (model, "which stage? write"),
        (f"{model}@fused", "did you mean 'fuse'?"),
    ]:
        assert message in failure(capsys, "diff", argument, argument)


def test_info_and_cache_as_json(capsys) -> None:
    assert json.loads(out(capsys, "info", "--json"))["graphflow"]
    assert set(json.loads(out(capsys, "cache", "--json"))) == {"folder", "bytes", "removed"}


# ---- the terminal ------------------------------------------------------------------------


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_colours_and_lines_of_its_width(monkeypatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout", Screen())
    line = "  %0: f32[2] = tanh(%x)  # model.py:3 fc"
    shown = terminal.ir([line])
    assert "\x1b[36m%0\x1b[0m" in shown and "\x1b[1mtanh\x1b[0m" in shown
    assert terminal.shorten(line, terminal.width()) == line[:29] + "…"
    assert terminal.difference([("-", "gone")]) == "\x1b[31m- gone\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in terminal.ir([line])
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert terminal.ir([line]) == line and terminal.width() is None


MODULE = """
import graphflow as gf
from graphflow import nn

def build():
    gf.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (gf.TensorSpec((2, 4), name="x"),)
"""


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One program in every form that the commands read."""
    folder = tmp_path_factory.mktemp("forms")
    (folder / "net.py").write_text(MODULE)
    made = {form: str(folder / f"net.{form}") for form in ("py", "gf", "onnx", "json")}
    for form in ("gf", "onnx"):
        assert main(["export", made["py"], "--to", form, "-o", made[form]]) == 0
    graph = Subject(made["gf"]).program.graph
    Path(made["json"]).write_text(graph.to_json())
    return made


@pytest.mark.parametrize("form", ["py", "gf", "onnx", "json"])
def test_every_form_is_inspected_and_compared(forms: dict[str, str], form: str, capsys) -> None:
    text = out(capsys, "inspect", forms[form], "--stage", "traced")
    assert "matmul" in text and "relu" in text
    assert json.loads(out(capsys, "inspect", forms[form], "--json"))["format"]
    stage = forms[form] if form == "json" else f"{forms[form]}@traced"
    assert " 0 changed" in out(capsys, "diff", stage, forms["json"]) or form == "onnx"


@pytest.mark.parametrize("form", ["gf", "onnx"])
def test_a_program_of_another_form_computes_the_same(forms: dict[str, str], form: str) -> None:
    x = gf.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 1.0, -1.0, 2.0]])
    expected = Subject(forms["py"]).step(x)
    assert gf.allclose(Subject(forms[form]).program(x), expected)


def test_nodes_of_an_onnx_model_carry_its_names(forms: dict[str, str], capsys) -> None:
    rows = json.loads(out(capsys, "inspect", forms["onnx"], "--op", "matmul", "--json"))
    assert {row["module"] for row in rows} == {"0.gemm"}


@pytest.mark.parametrize("form", ["gf", "onnx", "json"])
def test_a_page_of_every_form(forms: dict[str, str], form: str, tmp_path: Path, capsys) -> None:
    page = tmp_path / "page.html"
    made = out(capsys, "inspect", forms[form], "--html", str(page), "--json")
    assert json.loads(made)["files"] == [str(page)] and "matmul" in page.read_text()
    assert ('"comparison":' in page.read_text()) == (form == "onnx")


def test_bench_times_what_runs_eagerly(forms: dict[str, str], capsys) -> None:
    timed = json.loads(out(capsys, "bench", forms["onnx"], "--repeat", "3", "--json"))
    assert timed["max_abs_difference"] < 1e-6
    assert "also runs eagerly" in failure(capsys, "bench", forms["gf"])


def test_what_is_no_program_is_one_error(forms: dict[str, str], tmp_path: Path, capsys) -> None:
    for name in ("none.gf", "none.onnx", "none.json", "none.py"):
        assert "no such file" in failure(capsys, "inspect", str(tmp_path / name))
    for name in ("bad.gf", "bad.onnx", "bad.json", "bad.txt"):
        (tmp_path / name).write_bytes(Path(forms["gf"]).read_bytes()[: 40 + len(name)])
        assert name in failure(capsys, "inspect", str(tmp_path / name))
    (tmp_path / "model.bin").write_text("")
    assert "frozen program (.gf)" in failure(capsys, "inspect", str(tmp_path / "model.bin"))
    assert "only a model file" in failure(capsys, "inspect", forms["gf"], "--device", "cuda")

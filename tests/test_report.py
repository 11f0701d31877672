"""The HTML report: what is in the file, and what running a program for it leaves alone."""

import json
import pathlib
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow.cli.main import main
from graphflow.report import build, render

PAGE = pathlib.Path(build.__file__).parent / "page"


class Elements(HTMLParser):
    """The elements of a page, and the addresses they mention."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for name, v in attrs if name in ("src", "href")]


def embedded(page: str) -> Any:
    """The data of a page, read as a browser does: up to the first end of a script."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script', page, re.S)
    assert match is not None
    return json.loads(match[1])


@pytest.fixture
def step() -> tuple[Any, gf.Tensor]:
    weight = gf.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def step(x: gf.Tensor) -> gf.Tensor:
        loss = (weight * x).sum()
        loss.backward()
        with gf.no_grad():
            weight.sub_(weight.grad * 0.1)
        weight.grad = None
        return loss

    return step, weight


def test_a_timed_report_holds_the_program_and_leaves_its_state(
    step: tuple[Any, gf.Tensor], tmp_path: pathlib.Path
) -> None:
    function, weight = step
    program = gf.compile(gf.trace(function, gf.TensorSpec((3,))))
    before = weight.detach().numpy().copy()
    path = program.report(tmp_path / "page.html", (gf.tensor([1.0, 1.0, 1.0]),))
    np.testing.assert_array_equal(weight.detach().numpy(), before)
    data = embedded(path.read_text())
    assert data["measured"]["runs"] >= 3 and data["measured"]["seconds"] > 0
    assert all(s["seconds"] > 0 for s in data["steps"] if s["kind"] == "kernel")
    assert [s["name"] for s in data["stages"]] == [s.name for s in program.stages()[:-1]]
    lines = data["files"][__file__]
    assert any("weight * x" in text for text in lines.values())
    assert program.loaded.timings() == []  # the clock is off again


def test_a_report_without_inputs_runs_nothing(
    step: tuple[Any, gf.Tensor], tmp_path: pathlib.Path
) -> None:
    program = gf.compile(gf.trace(step[0], gf.TensorSpec((3,))))
    data = embedded(program.report(tmp_path / "page.html").read_text())
    assert data["measured"] is None and data["steps"][0]["seconds"] is None


def test_the_page_asks_for_nothing_and_all_scripts_are_in_it(
    step: tuple[Any, gf.Tensor], tmp_path: pathlib.Path
) -> None:
    program = gf.compile(gf.trace(step[0], gf.TensorSpec((3,))))
    text = program.report(tmp_path / "page.html").read_text()
    page = Elements()
    page.feed(text)
    assert all(address.startswith("data:") for address in page.addresses)
    assert "default-src 'none'" in text and "{{" not in text.replace("${{", "")
    assert {p.stem for p in PAGE.glob("*.js")} == set(build.SCRIPTS)


def test_hostile_names_stay_data() -> None:
    evil = "</script><script>alert(1)</script><!-- &amp; \u2028"
    graph = {"name": evil, "inputs": [], "state": [], "outputs": [], "updates": [], "nodes": []}
    stage = {"name": evil, "seconds": 0.0, "note": evil, "nodes": 0, "graph": graph}
    page = render({"name": evil, "stages": [stage], "steps": []})
    assert page.count("<script") == 2 and "alert(1)</script>" not in page
    assert embedded(page)["stages"][0]["name"] == evil


def test_the_command_writes_a_page_with_the_comparison(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.py"
    model.write_text(
        "import graphflow as gf\n"
        "def build():\n    return (lambda x: gf.tanh(x).sum()), gf.TensorSpec((4, 5))\n"
    )
    path = tmp_path / "out.html"
    assert main(["inspect", str(model), "--html", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    data = embedded(path.read_text())
    assert data["comparison"]["speedup"] > 0 and data["measured"]["runs"] > 0


def test_scripts_and_styles_are_within_the_budget_of_all_files() -> None:
    for path in PAGE.iterdir():
        lines = path.read_text().splitlines()
        assert len(lines) <= 500, path
        wide = [number for number, line in enumerate(lines, 1) if len(line) > 100]
        assert not wide, (path, wide)

"""The documentation shows what is really printed, and its code runs."""

import pathlib
import re
import sys
from typing import Any

import pytest

import graphflow as gf
from graphflow.inspect import sources, stage_texts

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: pathlib.Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def bare(line: str) -> str:
    """A line of IR without its place in the file and without the numbers of values."""
    return re.sub(r"%\d+", "%_", line.split("  #")[0].strip())


@pytest.fixture(scope="module")
def program() -> Any:
    """The compiled step of models/mlp.py."""
    sys.path.insert(0, str(ROOT / "models"))
    try:
        import mlp

        step, specs = mlp.build()
        return gf.compile(gf.trace(step, *specs))
    finally:
        sys.path.remove(str(ROOT / "models"))
        for name in ("mlp", "harness"):
            sys.modules.pop(name, None)


def test_the_stages_in_the_docs_are_the_real_ones(program: Any) -> None:
    printed = {bare(line) for _, text in stage_texts(program) for line in text.splitlines()}
    page = ROOT / "docs" / "how_a_step_travels.md"
    shown = [bare(line) for block in blocks(page, "ir") for line in block.splitlines()]
    assert len(shown) > 8
    stale = [line for line in shown if line not in printed]
    assert not stale, "update the page from `graphflow inspect models/mlp.py`"


def test_the_kernel_in_the_docs_is_the_real_one(program: Any) -> None:
    written = [source.text for source in sources(program)]
    (kernel,) = blocks(ROOT / "docs" / "how_a_step_travels.md", "kernel")
    assert any(kernel in text for text in written), (
        "update the page from `graphflow inspect models/mlp.py --stage kernels`"
    )


def test_the_counts_in_the_docs_are_the_real_ones(program: Any) -> None:
    text = " ".join((ROOT / "docs" / "how_a_step_travels.md").read_text().split())
    nodes = {stage.name: stage.nodes for stage in program.stages()}
    assert f"together: {nodes['traced']} nodes" in text
    assert f"bring {nodes['traced']} nodes to {nodes['simplify']}" in text
    assert f"by name, to {nodes['fuse']}." in text


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_files_that_pages_name_exist(page: pathlib.Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for path in re.findall(r"`((?:graphflow|models|docs|tests|benchmarks)/[\w/.]*\w)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


RUN = [
    "README.md", "docs/looking_at_programs.md", "docs/debugging.md", "docs/saving.md",
    "docs/training.md", "docs/distributed.md",
]  # fmt: skip


@pytest.mark.parametrize("name", RUN)
def test_the_code_of_the_page_runs(
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    code = blocks(ROOT / name, "python")
    assert code
    for number, block in enumerate(code):
        exec(compile(block, f"{name} block {number}", "exec"), namespace)
    assert capsys.readouterr().out.strip()


def test_the_recurrences_of_the_docs_run() -> None:
    namespace: dict[str, Any] = {"__name__": "recurrences"}
    code = blocks(ROOT / "docs" / "recurrences.md", "python")
    assert len(code) == 4
    for number, block in enumerate(code):
        exec(compile(block, f"recurrences block {number}", "exec"), namespace)

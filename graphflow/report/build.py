"""The page put together: the program's data, the styles and the scripts in one file."""

from __future__ import annotations

import json
import linecache
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from graphflow.inspection.program_data import program_data
from graphflow.profiling.limits import limits
from graphflow.profiling.record import timed

if TYPE_CHECKING:
    from graphflow.comparison import Comparison
    from graphflow.program import Program

SCRIPTS = (
    "dom", "program", "clusters", "layered", "scene", "minimap", "graph_view", "details",
    "overview", "ranking", "compare", "charts", "kernels", "search", "app",
)  # fmt: skip
"""In order: each uses those before it, and ``app`` starts the page."""

CONTEXT = 3
"""Lines of the user's file that are kept above and below each line that made a node."""


def write_report(
    program: Program,
    path: str | Path,
    inputs: Sequence[Any] | None = None,
    comparison: Comparison | None = None,
) -> Path:
    """Write the page of ``program`` to ``path``; returns the path.

    With ``inputs`` the program is run on them to time every kernel, and its state is put
    back; without, nothing runs and the page shows no times.
    ``comparison`` (of :func:`graphflow.benchmark`) adds the table of static against eager.
    """
    if inputs is None:
        data = program_data(program)
        data["measured"] = None
    else:
        data = _measured(program, inputs)
    if comparison is not None:
        data["comparison"] = asdict(comparison)
    path = Path(path)
    path.write_text(render(data), encoding="utf-8")
    return path


def _measured(program: Program, inputs: Sequence[Any]) -> dict[str, Any]:
    """The program's data with times, and the limits of the machine beside them."""
    steps, data = timed(program, tuple(inputs), None, program_data)
    data["measured"] = {"runs": len(steps), "seconds": median(steps)}
    best = limits()
    data["limits"] = {
        "flops": best.flops,
        "memory": best.copies[-1][1],
        "caches": max(rate for _, rate in best.copies),
    }
    return data


def render(data: Mapping[str, Any]) -> str:
    """The page of what :func:`graphflow.inspection.program_data` returned.

    Optional beside it: ``measured`` (``runs``, ``seconds``), ``limits`` of the machine
    (``flops``, ``memory`` and ``caches``, a second) and ``comparison``.
    """
    whole = {**data, "files": _lines(data)}
    folder = files("graphflow.report") / "page"
    parts = {
        "style": (folder / "style.css").read_text(encoding="utf-8"),
        "script": "\n".join(
            (folder / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS
        ),
        "data": _embedded(whole),
    }
    pieces = (folder / "page.html").read_text(encoding="utf-8").split("{{")
    page = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        page += [parts[name], rest]
    return "".join(page)


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in, whatever its strings hold."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _lines(data: Mapping[str, Any]) -> dict[str, dict[int, str]]:
    """The lines of the user's files around every place that made a node."""
    wanted: dict[str, set[int]] = {}
    for file, line in _places(data):
        near = range(max(1, line - CONTEXT), line + CONTEXT + 1)
        wanted.setdefault(file, set()).update(near)
    found: dict[str, dict[int, str]] = {}
    for file, numbers in wanted.items():
        lines = linecache.getlines(file)
        kept = {n: lines[n - 1].rstrip("\n") for n in sorted(numbers) if n <= len(lines)}
        if kept:
            found[file] = kept
    return found


def _places(data: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    for stage in data["stages"]:
        for node in stage["graph"]["nodes"]:
            if node["file"] and node["line"]:
                yield node["file"], node["line"]
    for step in data["steps"]:
        for place in step["locations"]:
            if place["file"] and place["line"]:
                yield place["file"], place["line"]

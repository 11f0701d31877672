"""A program, stage by stage, as text and as files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphflow.tables import duration


def stage_texts(program: Any) -> Iterator[tuple[str, str]]:
    """Name and text of every stage of a :class:`Program`, in order."""
    for stage in program.stages():
        note = f", {stage.note}" if stage.note else ""
        head = f"# {stage.name}: {stage.nodes} nodes, {duration(stage.seconds)}{note}"
        body = stage.graph if stage.graph is not None else stage.schedule
        yield stage.name, f"{head}\n{body}\n"


def kernel_text(kernel: Any) -> str:
    """One kernel: where its file is, what it computes, for which lines, and its source."""
    lines = [f"# {kernel.name}", f"# file: {kernel.source_path}"]
    lines += [f"# for: {line}" for line in kernel.user_lines]
    lines += [f"# ir: {line}" for line in str(kernel.ir).splitlines()]
    return "\n".join([*lines, str(kernel.source).rstrip(), ""])


def write_program(program: Any, folder: str | Path) -> list[Path]:
    """Write every stage, the kernels and the explanation into ``folder``.

    Files of an earlier call are replaced.  Returns the paths in reading order.
    """
    folder = Path(folder)
    kernels = folder / "kernels"
    for old in folder.glob("[0-9][0-9]_*.txt"):
        old.unlink()
    shutil.rmtree(kernels, ignore_errors=True)
    kernels.mkdir(parents=True)
    written = []
    for number, (name, text) in enumerate(stage_texts(program)):
        path = folder / f"{number:02d}_{name}.txt"
        path.write_text(text, encoding="utf-8")
        written.append(path)
    for kernel in program.kernels:
        path = kernels / f"{kernel.name}.py"
        path.write_text(kernel_text(kernel), encoding="utf-8")
        written.append(path)
    path = folder / "explain.txt"
    path.write_text(f"{program.explain()}\n", encoding="utf-8")
    written.append(path)
    return written

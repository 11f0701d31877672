"""A program, stage by stage, as text and as files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphflow.codegen.schedule import Call, KernelSource, kernels_in, plain_steps
from graphflow.records import dataclass, field
from graphflow.tables import duration


@dataclass
class Source:
    """One distinct kernel of a program, and the calls that use it."""

    kernel: KernelSource
    path: Path | None
    calls: list[Call] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Where the file is, what each call computes for which lines, then the source."""
        lines = [f"# {self.kernel.name}", f"# file: {self.path}"]
        for call in self.calls:
            lines.append(f"# call for {', '.join(map(str, call.provenance.locations))}")
            lines += [f"#     {line}" for line in call.provenance.ir.splitlines()]
        return "\n".join([*lines, self.kernel.source.rstrip(), ""])


def sources(program: Any) -> list[Source]:
    """The distinct kernels of a :class:`Program`, epilogues included, in order of first use."""
    paths = program.loaded.loaded.paths
    found: dict[str, Source] = {}
    for call in plain_steps(program.schedule.steps):
        if isinstance(call, Call):
            for kernel in kernels_in([call]):
                fresh = Source(kernel, paths.get(kernel.name))
                found.setdefault(kernel.name, fresh).calls.append(call)
    return list(found.values())


def stage_texts(program: Any) -> Iterator[tuple[str, str]]:
    """Name and text of every stage of a :class:`Program`, in order."""
    for stage in program.stages():
        body = stage.graph if stage.graph is not None else stage.schedule
        note = stage.note if stage.note.startswith(stage.name) else f"{stage.name}: {stage.note}"
        yield stage.name, f"# {note}, {duration(stage.seconds)}\n{body}\n"


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
    texts = {
        folder / f"{number:02d}_{name}.txt": text
        for number, (name, text) in enumerate(stage_texts(program))
    }
    texts |= {kernels / f"{source.kernel.name}.py": source.text for source in sources(program)}
    texts[folder / "explain.txt"] = f"{program.explain()}\n"
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return list(texts)

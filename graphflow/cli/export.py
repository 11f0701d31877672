"""Write a model file's step as a program of its own: stand-alone Python, or a frozen program."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from graphflow.api import compile, trace
from graphflow.cli import modelfile
from graphflow.program import Program
from graphflow.standalone import export_python
from graphflow.tables import quantity


def _to_python(program: Program, path: Path) -> list[Path]:
    return [*export_python(program, path)]


def _to_frozen(program: Program, path: Path) -> list[Path]:
    program.save(path)
    return [path]


FORMATS = {"python": (".py", _to_python), "gf": (".gf", _to_frozen)}
"""Suffix and writer of each format; a writer returns the files it wrote."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``graphflow export``."""
    parser.add_argument("file", metavar="FILE[:builder]", help=modelfile.HELP)
    parser.add_argument(
        "--to", choices=FORMATS, required=True,
        help="python: a file that needs NumPy and Numba only, weights beside it; "
        "gf: for gf.load_program",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="where to (NAME_exported.py, NAME.gf)"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(options: argparse.Namespace) -> None:
    """Write the files and say which."""
    step, specs = modelfile.load_builder(options.file)
    suffix, write = FORMATS[options.to]
    stem = Path(options.file.rpartition(".py")[0]).name
    default = f"{stem}_exported{suffix}" if suffix == ".py" else f"{stem}{suffix}"
    program = compile(trace(step, *specs))
    files = write(program, Path(options.output or default))
    sizes = {str(path): path.stat().st_size for path in files}
    if options.json:
        print(json.dumps({"format": options.to, "files": sizes}))
        return
    for path, size in sizes.items():
        print(f"{path}: {quantity(size)}")

"""Write a program as stand-alone Python, as a frozen program, or as an ONNX model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from graphflow import nn, onnx
from graphflow.cli.subject import HELP, Subject
from graphflow.errors import GraphFlowError
from graphflow.standalone import export_python
from graphflow.tables import quantity


def _to_python(subject: Subject, path: Path, options: argparse.Namespace) -> list[Path]:
    return [*export_python(subject.program, path)]


def _to_frozen(subject: Subject, path: Path, options: argparse.Namespace) -> list[Path]:
    subject.program.save(path, native=options.native)
    return [path]


def _to_onnx(subject: Subject, path: Path, options: argparse.Namespace) -> list[Path]:
    """A function or module is traced anew, so that its layers become ONNX's operators."""
    opset = {} if options.opset is None else {"opset": options.opset}
    step = subject.step if subject.specs else None
    if isinstance(step, nn.Module):
        step.eval()
    try:
        onnx.export(step or subject.program, subject.specs, path, **opset)
    except GraphFlowError as error:
        hint = ""
        if step is not None and not isinstance(step, nn.Module):
            hint = (
                "\n(a builder may return a module in place of a step: "
                f"graphflow export {subject.argument.partition('.py')[0]}.py:inference --to onnx, "
                "with inference() -> (model, specs))"
            )
        raise GraphFlowError(f"{error}{hint}") from None
    beside = path.with_name(f"{path.name}.data")
    return [path, beside] if beside.exists() else [path]


FORMATS = {
    "python": ("_exported.py", _to_python),
    "gf": (".gf", _to_frozen),
    "onnx": (".onnx", _to_onnx),
}
"""What a file's name ends in, and the writer of each format, which returns what it wrote."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``graphflow export``."""
    parser.add_argument("file", metavar="FILE", help=HELP)
    parser.add_argument(
        "--to", choices=FORMATS, required=True,
        help="python: a file that needs NumPy and Numba only, weights beside it; "
        "gf: for gf.load_program; onnx: for other systems, in evaluation mode",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="where to (NAME_exported.py, NAME.gf, NAME.onnx)"
    )
    parser.add_argument("--opset", type=int, help="onnx: the version of the operators")
    parser.add_argument("--native", action="store_true", help="gf: with the kernels' native code")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(options: argparse.Namespace) -> None:
    """Write the files and say which."""
    subject = Subject(options.file)
    ending, write = FORMATS[options.to]
    files = write(subject, Path(options.output or f"{subject.name}{ending}"), options)
    sizes = {str(path): path.stat().st_size for path in files}
    if options.json:
        print(json.dumps({"format": options.to, "files": sizes}))
        return
    for path, size in sizes.items():
        print(f"{path}: {quantity(size)}")

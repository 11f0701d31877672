"""Show every stage and every kernel of a model file's step, or of a program in another file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from graphflow.cli import choose
from graphflow.cli.subject import HELP, Subject
from graphflow.comparison import benchmark
from graphflow.inspect import write_program
from graphflow.report import write_report

_STEPS = 10
"""Steps of each mode that are timed for the page's table of static against eager."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``graphflow inspect``."""
    parser.add_argument("file", metavar="FILE", help=HELP)
    parser.add_argument("--stage", metavar="NAME", help="this stage only; 'kernels' for the source")
    parser.add_argument("--op", metavar="NAME", help="the nodes of this operation only")
    parser.add_argument("--kernel", metavar="NAME", help="this kernel only, or all that begin so")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.add_argument("--output", metavar="FOLDER", help="write files instead of printing")
    parser.add_argument("--html", metavar="FILE", help="write one HTML page instead of printing")
    parser.add_argument("--device", default="cpu", help="device to compile for (default: cpu)")


def run(options: argparse.Namespace) -> None:
    """Print (or write) the stages of the compiled step."""
    subject = Subject(options.file, options.device)
    if options.html or options.output:
        written = (
            [_write_page(subject, options.html)] if options.html
            else write_program(subject.program, options.output)
        )  # fmt: skip
        paths = [str(path) for path in written]
        print(json.dumps({"files": paths}) if options.json else "\n".join(paths))
        return
    show = choose.as_json if options.json else choose.text
    print(show(subject.program, options.stage, options.op, options.kernel))


def _write_page(subject: Subject, path: str) -> Path:
    """The program's page, with times measured on random inputs (where its state has values)."""
    if subject.program._unloaded:
        return write_report(subject.program, path)
    inputs = subject.examples()
    comparison = None
    if subject.step is not None:
        comparison = benchmark(subject.step, *inputs, repeat=_STEPS)
    return write_report(subject.program, path, inputs, comparison)

"""Compile a model file's step and show every stage and every kernel."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from graphflow.api import compile, trace
from graphflow.cli import choose, modelfile
from graphflow.comparison import benchmark
from graphflow.inspect import write_program
from graphflow.report import write_report

_STEPS = 10
"""Steps of each mode that are timed for the page's table of static against eager."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``graphflow inspect``."""
    parser.add_argument("file", metavar="FILE[:builder]", help=modelfile.HELP)
    parser.add_argument("--stage", metavar="NAME", help="this stage only; 'kernels' for the source")
    parser.add_argument("--op", metavar="NAME", help="the nodes of this operation only")
    parser.add_argument("--kernel", metavar="NAME", help="this kernel only, or all that begin so")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.add_argument("--output", metavar="FOLDER", help="write files instead of printing")
    parser.add_argument("--html", metavar="FILE", help="write one HTML page instead of printing")
    parser.add_argument("--device", default="cpu", help="device to compile for (default: cpu)")


def run(options: argparse.Namespace) -> None:
    """Print (or write) the stages of the compiled step."""
    step, specs = modelfile.load_builder(options.file)
    program = compile(trace(step, *specs), device=options.device)
    if options.html:
        print(_write_page(step, specs, program, options.html))
        return
    if options.output:
        print("\n".join(str(path) for path in write_program(program, options.output)))
        return
    show = choose.as_json if options.json else choose.text
    print(show(program, options.stage, options.op, options.kernel))


def _write_page(step: Any, specs: tuple[Any, ...], program: Any, path: str) -> Path:
    """The program's page, with times measured on random inputs."""
    inputs = [modelfile.example(spec) for spec in specs]
    comparison = benchmark(step, *inputs, repeat=_STEPS)
    return write_report(program, path, inputs, comparison)

"""Time a model file's step (or an ONNX model), static against eager; or run the whole suite."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys

import graphflow as gf
from graphflow.cli.subject import HELP, Subject
from graphflow.errors import GraphFlowError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``graphflow bench``."""
    help = f"{HELP}; without it, the suite beside GraphFlow's peers (in its repository)"
    parser.add_argument("file", metavar="FILE", nargs="?", help=help)
    parser.add_argument("--quick", action="store_true", help="of the suite: only try everything")
    parser.add_argument("--repeat", type=int, help="steps to time in each mode")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> None:
    """Print the comparison."""
    if options.file is None:
        _suite(options)
        return
    if options.quick:
        options.parser.error("--quick is for the suite, which runs without FILE")
    subject = Subject(options.file)
    step = subject.callable("graphflow bench")
    comparison = gf.benchmark(step, *subject.examples(), repeat=options.repeat)
    print(comparison.to_json() if options.json else comparison)


def _suite(options: argparse.Namespace) -> None:
    """Run `python -m benchmarks.suite`, which is not installed with the package."""
    if options.repeat is not None or options.json:
        options.parser.error("--repeat and --json need FILE; the suite writes its own files")
    here = os.getcwd()
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    if not os.path.exists(os.path.join(here, "benchmarks", "suite.py")) and not _importable():
        raise GraphFlowError(
            "graphflow bench without FILE runs the benchmark suite, which is in GraphFlow's "
            "repository: run it there, or name a model file"
        )
    command = [sys.executable, "-m", "benchmarks.suite", *(["--quick"] if options.quick else [])]
    status = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode
    if status:
        raise SystemExit(status)


def _importable() -> bool:
    try:
        return importlib.util.find_spec("benchmarks.suite") is not None
    except ModuleNotFoundError:
        return False

"""Time a model file's step (or an ONNX model), static against eager."""

from __future__ import annotations

import argparse

import graphflow as gf
from graphflow.cli.subject import HELP, Subject


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``graphflow bench``."""
    parser.add_argument("file", metavar="FILE", help=HELP)
    parser.add_argument("--repeat", type=int, help="steps to time in each mode")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> None:
    """Print the comparison."""
    subject = Subject(options.file)
    step = subject.callable("graphflow bench")
    comparison = gf.benchmark(step, *subject.examples(), repeat=options.repeat)
    print(comparison.to_json() if options.json else comparison)

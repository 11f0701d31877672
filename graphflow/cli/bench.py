"""Time a model file's step, static against eager."""

from __future__ import annotations

import argparse
from pathlib import Path

import graphflow as gf
from graphflow.cli import modelfile


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``graphflow bench``."""
    parser.add_argument("file", metavar="FILE[:builder]", help=modelfile.HELP)
    parser.add_argument("--repeat", type=int, help="steps to time in each mode")
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")


def run(options: argparse.Namespace) -> None:
    """Print the comparison."""
    step, specs = modelfile.load_builder(options.file)
    inputs = [modelfile.example(spec) for spec in specs]
    comparison = gf.benchmark(step, *inputs, repeat=options.repeat)
    print(comparison)
    if options.json:
        Path(options.json).write_text(f"{comparison.to_json()}\n", encoding="utf-8")

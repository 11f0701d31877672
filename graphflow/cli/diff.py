"""Show what differs between two graphs: nodes matched by structure, not by number."""

from __future__ import annotations

import argparse
import json

from graphflow.cli import modelfile, terminal
from graphflow.cli.choose import as_json
from graphflow.cli.subject import Subject, read_graph
from graphflow.errors import GraphFlowError
from graphflow.ir.graph import Graph

HELP = (
    "a graph as JSON (graphflow inspect … --stage NAME --json), as text, or a stage of a program: "
    "FILE.py[:builder]@stage, FILE.gf@stage, FILE.onnx@stage"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``graphflow diff``."""
    parser.add_argument("old", metavar="OLD", help=HELP)
    parser.add_argument("new", metavar="NEW", help="another one")
    parser.add_argument("--json", action="store_true", help="print the difference as JSON")
    parser.add_argument("--exit-code", action="store_true", help="status 1 if they differ")


def run(options: argparse.Namespace) -> None:
    """Print the difference."""
    found = load(options.old).diff(load(options.new))
    if options.json:
        print(json.dumps(found.data(), indent=1))
    else:
        print(terminal.paint(f"{options.old} → {options.new}: {found.summary}", "bold"))
        if found:
            print(terminal.difference(found.lines()))
    if options.exit_code and found:
        raise SystemExit(1)


def load(argument: str) -> Graph:
    """The graph that an argument names."""
    file, at, stage = argument.rpartition("@")
    if at and modelfile.split(file)[0].suffix.lower() in (".py", ".gf", ".onnx"):
        return Graph.from_json(as_json(Subject(file).program, stage, None, None))
    if modelfile.split(argument)[0].suffix.lower() in (".py", ".gf", ".onnx"):
        raise GraphFlowError(f"{argument}: which stage? write {argument}@traced, or another stage")
    return read_graph(argument)

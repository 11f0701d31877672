"""Show what differs between two graphs: nodes matched by structure, not by number."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from graphflow.api import compile, trace
from graphflow.cli import modelfile, terminal
from graphflow.cli.choose import as_json
from graphflow.errors import GraphError, GraphFlowError
from graphflow.ir.graph import Graph

HELP = (
    "a graph as JSON (graphflow inspect … --stage NAME --json), as text, or FILE.py[:builder]@stage"
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
    model, at, stage = argument.rpartition("@")
    if at and ".py" in model:
        step, specs = modelfile.load_builder(model)
        return Graph.from_json(as_json(compile(trace(step, *specs)), stage, None, None))
    path = Path(argument)
    if path.suffix == ".py":
        raise GraphFlowError(f"{argument}: which stage? write {argument}@traced, or another stage")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise GraphFlowError(f"{argument}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise GraphFlowError(f"{argument}: neither JSON nor text") from None
    try:
        return Graph.from_json(text) if text.lstrip()[:1] in "{[" else Graph.parse(text)
    except GraphError as error:
        raise GraphFlowError(f"{argument}: {error}") from None

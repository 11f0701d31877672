"""The command line: one sub-command a file, chosen here."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from graphflow.errors import GraphFlowError
from graphflow.version import __version__


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors suggest what was meant."""

    def error(self, message: str) -> NoReturn:
        """Print one line that says what is wrong, and exit with status 2."""
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            known = [flag for action in self._actions for flag in action.option_strings]
            message += self._closest(unknown[1], known)
        self.exit(2, f"{self.prog}: {message}\nTry: {self.prog} --help\n")

    def _closest(self, word: str, known: list[str]) -> str:
        close = difflib.get_close_matches(word.split("=")[0], known, n=1)
        return f"; did you mean {close[0]}?" if close else ""


def parser() -> Parser:
    """The whole command line."""
    from graphflow.cli import bench, cache, diff, export, info, inspect, launch, run

    top = Parser(prog="graphflow", description="GraphFlow: look at, time and manage programs.")
    top.add_argument("--version", action="version", version=f"graphflow {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    modules = {
        "info": info, "inspect": inspect, "diff": diff, "bench": bench, "export": export,
        "run": run, "launch": launch, "cache": cache,
    }  # fmt: skip
    for name, module in modules.items():
        help = (module.__doc__ or "").splitlines()[0]
        sub = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        module.arguments(sub)
        sub.set_defaults(run=module.run, parser=sub)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (1 for an error, 2 for wrong usage)."""
    try:
        options, extra = parser().parse_known_args(arguments)
        if extra:  # reported by the sub-command, which can suggest its own flags
            options.parser.error(f"unrecognized arguments: {' '.join(extra)}")
        options.run(options)
    except GraphFlowError as error:
        print(f"graphflow: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # such as `graphflow inspect … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 0

"""Run a script on several processes, which train together (graphflow.distributed)."""

from __future__ import annotations

import argparse
from typing import Any


def arguments(parser: argparse.ArgumentParser) -> None:
    """How many processes, and the script with everything that it is given."""
    parser.add_argument(
        "-n", "--nproc", type=int, default=2, metavar="N", help="processes (ranks); default 2"
    )
    parser.add_argument(
        "--threads", type=int, metavar="T", help="threads of a rank; by default cores are divided"
    )
    parser.add_argument(
        "--hosts", metavar="A,B", help="machines to start ranks on (mpiexec -hosts)"
    )
    parser.add_argument(
        "-l", "--label", action="store_true", help="begin every line of output with its rank"
    )
    parser.add_argument("script", help="a Python file that calls distributed.init_process_group()")
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="the script's own arguments, as they are"
    )


def run(options: Any) -> None:
    """Start the job and wait for it; its exit status is the command's."""
    from graphflow.distributed.launch import launch

    status = launch(
        options.script, options.arguments, options.nproc,
        threads=options.threads, hosts=options.hosts, label=options.label,
    )  # fmt: skip
    if status:
        raise SystemExit(status)

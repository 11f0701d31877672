"""What each rank of ``graphflow launch`` runs: the user's script, with an eye on how it ends.

The first rank that fails leaves its traceback in the job's folder and ends the job; the others,
which would wait for it for ever, are stopped without a word.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from graphflow.distributed.board import Board, Stage, post
from graphflow.distributed.mpi import mpi
from graphflow.records import dataclass

FAILURE, BOARD, SEGMENTS = "failure.json", "board", "segments"
_SEGMENT = re.compile(r"/dev/shm/mpich_shm_\w+")


@dataclass(frozen=True, slots=True)
class Failure:
    """How a script ended that did not end well: the exit status, why, and the traceback."""

    code: int
    cause: str
    trace: str = ""

    def report(self, job: Path, rank: int) -> None:
        """Say why the job ends, unless another rank was first."""
        own = job / f"failure-{rank}"
        own.write_text(
            json.dumps({"rank": rank, "cause": self.cause, "code": self.code, "trace": self.trace})
        )
        with contextlib.suppress(FileExistsError):
            os.link(own, job / FAILURE)  # whole, or not at all


def _segments() -> set[str]:
    """The files that MPI shares memory through here, and leaves behind when it is killed."""
    try:
        return set(_SEGMENT.findall(Path("/proc/self/maps").read_text()))
    except OSError:
        return set()


def _status(error: SystemExit) -> int:
    """The exit status that ``sys.exit(...)`` asks for."""
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1


def _from_script(trace: TracebackType | None, script: str) -> TracebackType | None:
    """The traceback without the frames that run the script."""
    step = trace
    while step is not None and step.tb_frame.f_code.co_filename != script:
        step = step.tb_next
    return step or trace


def _run(script: str) -> Failure | None:
    """Run the script; how it failed, if it did."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as error:
        code = _status(error)
        said = "" if isinstance(error.code, int) else f": {error.code}"
        return Failure(code, f"ended with exit status {code}{said}") if code else None
    except KeyboardInterrupt:
        return Failure(130, "was interrupted")
    except BaseException as error:
        error.__traceback__ = _from_script(error.__traceback__, script)
        last = traceback.format_exception_only(error)[-1].strip()
        return Failure(1, f"raised {last}", "".join(traceback.format_exception(error)))
    return None


def main(arguments: list[str]) -> None:
    """``worker JOB SCRIPT ARGUMENTS…``; ``JOB`` is the job's folder, or ``-`` if none is shared."""
    job, script, *rest = arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Whole lines, so that ranks do not mix.
            stream.reconfigure(line_buffering=True, write_through=False)
    MPI: Any = mpi()
    rank, size = MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()
    near = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size),
        LOCAL_RANK=str(near.Get_rank()), LOCAL_WORLD_SIZE=str(near.Get_size()),
    )  # fmt: skip
    folder, board = Path(job), None
    if job != "-":
        if near.Get_rank() == 0:
            (folder / SEGMENTS).write_text("\n".join(_segments()))
        board = Board(folder / BOARD, rank, size)
        post(board)
        board.await_watcher()
    sys.argv = [script, *rest]
    sys.path[0] = str(Path(script).resolve().parent)
    failure = _run(script)
    sys.stdout.flush()
    if failure is not None:
        if job != "-":
            failure.report(folder, rank)
        else:
            print(f"{failure.trace}rank {rank} {failure.cause}; the job ends", file=sys.stderr)
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(failure.code)
    if board is not None:
        board.stage(Stage.ENDED)


if __name__ == "__main__":
    main(sys.argv[1:])

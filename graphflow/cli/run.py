"""Run an unmodified PyTorch script with torch and torchvision meaning GraphFlow."""

from __future__ import annotations

import argparse
import linecache
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from graphflow.cli import torch_names
from graphflow.errors import GraphFlowError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The script and everything that it is given."""
    parser.add_argument("script", help="a Python file that imports torch")
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="the script's own arguments, as they are"
    )


def run(options: Any) -> None:
    """Execute the script as ``python script …`` would."""
    path = Path(options.script)
    if not path.is_file():
        raise GraphFlowError(f"{options.script}: no such file")
    torch_names.install()
    sys.argv = [options.script, *options.arguments]
    sys.path.insert(0, str(path.parent.resolve()))
    main = ModuleType("__main__")
    main.__dict__.update(__file__=str(path), __builtins__=__builtins__)
    sys.modules["__main__"] = main  # classes of the script are pickled by this name
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), main.__dict__)
    except Exception as error:
        report(error, path)
        raise SystemExit(1) from None


def report(error: Exception, script: Path) -> None:
    """Print what went wrong: one line for a missing name, else the script's traceback."""
    trace = _from_script(error.__traceback__, script)
    name = missing_name(error)
    if name is None or trace is None:
        traceback.print_exception(error.with_traceback(trace))
        return
    frame = _last_frame(trace, script)
    file, line = frame.tb_frame.f_code.co_filename, frame.tb_lineno
    print(f"{file}:{line}: {name} is not available in GraphFlow", file=sys.stderr)
    print(f"    {linecache.getline(file, line).strip()}", file=sys.stderr)


def missing_name(error: Exception) -> str | None:
    """The name of PyTorch's that ``error`` is about; None for other errors."""
    if isinstance(error, torch_names.MissingName | torch_names.MissingModule):
        return str(error).partition(" ")[0]
    if isinstance(error, ImportError):
        found = re.match(r"cannot import name '(\w+)' from '((?:torch|torchvision)\b[\w.]*)'",
                         str(error))  # fmt: skip
        return f"{found[2]}.{found[1]}" if found else None
    if isinstance(error, AttributeError):
        owner = error.obj if isinstance(error.obj, type) else type(error.obj)
        if owner.__module__.partition(".")[0] == "graphflow":
            return f"torch.{owner.__qualname__}.{error.name}"
    return None


def _from_script(trace: TracebackType | None, script: Path) -> TracebackType | None:
    """The traceback from the script's own code on."""
    while trace is not None and trace.tb_frame.f_code.co_filename != str(script):
        trace = trace.tb_next
    return trace


def _last_frame(trace: TracebackType, script: Path) -> TracebackType:
    """The innermost place in the script or in a file beside it."""
    folder, last = str(script.parent.resolve()), trace
    step: TracebackType | None = trace
    while step is not None:
        if str(Path(step.tb_frame.f_code.co_filename).resolve()).startswith(folder):
            last = step
        step = step.tb_next
    return last

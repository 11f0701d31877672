"""Where in the user's code something happens: the innermost line that is not the package's."""

from __future__ import annotations

import os
import sys
from functools import lru_cache

from graphflow.ir.graph import Location

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
"""The folder of the package's own files."""


def user_place(skip: int = 0, module: str = "") -> Location:
    """The innermost line outside of the package (in the call of ``module``)."""
    frame = sys._getframe(1 + skip)
    while frame is not None:
        file = frame.f_code.co_filename
        own = _own.get(file)
        if own is None:
            own = _own[file] = file.startswith(PACKAGE)
        if not own:
            break
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None or frame.f_code.co_filename.startswith("<frozen "):  # `python -m graphflow`
        return _place("", 0, module)
    return _place(frame.f_code.co_filename, frame.f_lineno, module)


_place = lru_cache(maxsize=4096)(Location)


_own: dict[str, bool] = {}
"""Whether files are part of the package."""

"""Files that are there whole or not at all.

What is written goes to a file beside the target, is forced to the disk, and
takes the target's name in one step.  Killed at any moment, or out of space,
the old file is still what it was.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary stream whose content becomes ``path`` when the block ends without an error.

    A link is followed: the file it points to is replaced.
    """
    target = Path(os.path.realpath(path))
    _forget_dead_writers(target)
    part = target.with_name(f"{_prefix(target)}{os.getpid()}-{os.urandom(4).hex()}.part")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(part, flags, 0o666)  # less what the user masks
        with os.fdopen(descriptor, "w+b") as stream:
            with contextlib.suppress(OSError):
                os.chmod(part, target.stat().st_mode & 0o777)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync_folder(target.parent)


def _prefix(target: Path) -> str:
    """How the temporary files of this target and machine begin."""
    from socket import gethostname  # whoever reads files only does without

    host = re.sub(r"[^A-Za-z0-9]", "", gethostname())
    return f".{target.name}.{host}-"


def _forget_dead_writers(target: Path) -> None:
    """Remove what processes of this machine left behind when they were killed."""
    prefix = _prefix(target)
    with contextlib.suppress(OSError):
        for entry in os.scandir(target.parent):
            if entry.name.startswith(prefix) and entry.name.endswith(".part"):
                pid = entry.name[len(prefix) :].split("-")[0]
                if pid.isdigit() and not _alive(int(pid)):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Force the new name to the disk, where folders can be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

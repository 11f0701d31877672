"""The cache folder: files that are written whole, checked when read, and evicted by age.

Native code is loaded from it, so it must be the user's own.  Whatever goes
wrong (a full disk, a read-only home, a truncated file) is one warning, and the
program runs on.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import time
import warnings
from pathlib import Path

from graphflow import flags
from graphflow.digests import new_digest
from graphflow.errors import CacheWarning

MAGIC = b"GFKERN02"
_DIGEST = 32
HEADER = len(MAGIC) + 8 + 2 * _DIGEST  # magic, payload length, key, digest of the payload
TOUCH_SECONDS = 3600  # how stale a last-use time may be; saves a write a hit
_ORPHAN_SECONDS = 3600  # age at which a temporary file has no living writer
_EVICT_TO = 0.8  # an overfull cache is cut to this part of its limit
_OWN_FILE = re.compile(
    r"\w+-[0-9a-f]{12}\.py|\w+-[0-9a-f]{16}\.(?:o|cpu|digest|cubin)|\w+-[0-9a-f]{24}\.plan"
    r"|\.\w+-[0-9a-f.oplanycugdiest]+\.tmp"
)
_warned: set[str] = set()


def warn_once(kind: str, message: str) -> None:
    """Warn, the first time something of this ``kind`` goes wrong."""
    if kind not in _warned:
        _warned.add(kind)
        warnings.warn(
            f"{message}; affected kernels are compiled again, and the program runs on",
            CacheWarning,
            stacklevel=3,
        )


def warn_unwritable(folder: Path, error: OSError) -> None:
    """Warn that nothing can be stored."""
    reason = error.strerror or error
    warn_once("unwritable", f"the kernel cache {folder} cannot be written ({reason})")


def store(path: Path, key: bytes, payload: bytes) -> None:
    """Keep ``payload`` under ``key``, for :func:`read_file`; a warning where that is impossible."""
    try:
        write_file(path, pack(key, payload))
    except OSError as error:
        warn_unwritable(path.parent, error)


def default_folder() -> Path:
    """``GRAPHFLOW_CACHE_DIR``, else ``graphflow`` in the user's cache folder (XDG)."""
    chosen = flags.CACHE_DIR.value
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: ignore relative paths
        base = os.path.expanduser("~/.cache")
    return Path(base).absolute() / "graphflow"


def usable_folder() -> Path | None:
    """The cache folder if native code may be loaded from it, else None and one warning."""
    folder = default_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = os.stat(folder)
    except OSError as error:
        warn_once(
            "unusable", f"the kernel cache {folder} cannot be used ({error.strerror or error})"
        )
        return None
    if hasattr(os, "getuid") and facts.st_uid != os.getuid():
        warn_once(
            "owner",
            f"the kernel cache {folder} belongs to another user, so no native code is loaded "
            "from it (set GRAPHFLOW_CACHE_DIR to a folder of your own)",
        )
        return None
    if os.name == "posix" and stat.S_IMODE(facts.st_mode) & 0o022:
        warn_once(
            "mode",
            f"the kernel cache {folder} may be written to by others, so no native code is "
            f"loaded from it (chmod 700 {folder})",
        )
        return None
    return folder


def _header(key: bytes, payload: bytes) -> bytes:
    length = len(payload).to_bytes(8, "little")
    return b"".join((MAGIC, length, key, new_digest(payload).digest()))


def pack(key: bytes, payload: bytes) -> bytes:
    """The contents of a file: ``payload`` under ``key`` (32 bytes), with its digest."""
    return _header(key, payload) + payload


def unpack(key: bytes, data: bytes) -> bytes | None:
    """The payload, or None when the file is not exactly what was written for ``key``."""
    payload = data[HEADER:]
    return payload if data[:HEADER] == _header(key, payload) else None


def read_file(path: Path, key: bytes) -> bytes | None:
    """What was stored under ``key``; None if it is not there, or not whole."""
    try:
        with open(path, "rb") as file:
            data = file.read()
            age = time.time() - os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        warn_once("unreadable", f"kernel cache file {path}: {error.strerror or error}")
        return None
    payload = unpack(key, data)
    if payload is None:
        warn_once("damaged", f"kernel cache file {path} is damaged or foreign and was not loaded")
    elif age > TOUCH_SECONDS:
        touch(path)
    return payload


def touch(path: Path) -> None:
    """Mark a file as used now."""
    try:
        os.utime(path)
    except OSError:
        pass  # a read-only cache still serves


def write_file(path: Path, data: bytes) -> None:
    """Write atomically: other processes see the old file, none, or the whole new one."""
    temporary = path.with_name(
        f".{path.name}.{os.getpid():x}.{threading.get_ident():x}.{time.monotonic_ns():x}.tmp"
    )
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def entries(folder: Path) -> list[tuple[float, int, str]]:
    """(last use, bytes, path) of every file the cache owns."""
    found = []
    try:
        with os.scandir(folder) as files:
            for file in files:
                if _OWN_FILE.fullmatch(file.name) and file.is_file(follow_symlinks=False):
                    facts = file.stat(follow_symlinks=False)
                    found.append((facts.st_mtime, facts.st_size, file.path))
    except OSError:
        pass  # no folder, or files that vanished under a concurrent clear
    return found


def evict(folder: Path, keep: set[str]) -> None:
    """Remove orphaned temporaries, and the least recently used files beyond the limit."""
    files = sorted(entries(folder))
    total = sum(size for _, size, _ in files)
    limit = flags.CACHE_LIMIT.value
    goal = total if total <= limit else int(limit * _EVICT_TO)
    orphaned = time.time() - _ORPHAN_SECONDS
    for used, size, path in files:
        orphan = path.endswith(".tmp") and used < orphaned
        if orphan or (total > goal and path not in keep and not path.endswith(".tmp")):
            try:
                os.unlink(path)
            except OSError:
                continue
            total -= size

"""``gf.save`` and ``gf.load``: which format, and where to."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any

from graphflow.device import available as as_device
from graphflow.errors import GraphFlowError
from graphflow.mode import mode
from graphflow.serialization import safetensors
from graphflow.serialization.atomic import replacing
from graphflow.serialization.structure import flatten, rebuild

PYTORCH_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".tar"}
_ZIP_START = b"PK\x03\x04"
_LENGTH_THEN_JSON = b"\0\0\0\0{"
"""Bytes 4 to 8 of a safetensors file; its length, before them, may begin like a pickle."""


def save(obj: Any, f: Any, *unused: Any, format: str | None = None, **also_unused: Any) -> None:
    """Write ``obj`` to a file, whole or not at all.

    ``obj``: tensors, NumPy arrays, numbers, strings, bytes, and dicts, lists,
    tuples and sets of them, such as a ``state_dict()`` or a checkpoint of
    several.  ``f``: a path, or a binary stream.  ``format``: ``"safetensors"`` or
    ``"pytorch"``; by default the suffix decides: ``.pt``, ``.pth``, ``.ckpt``,
    ``.bin`` and ``.tar`` are PyTorch's format, everything else safetensors.

    A file appears under its name only when it is complete and on the disk;
    until then an older one stays as it was.  Options of ``torch.save`` about
    pickling are accepted and mean nothing here.
    """
    if mode.tracer is not None:
        raise GraphFlowError("gf.save inside a compiled function is not possible; save outside it")
    stream = hasattr(f, "write")
    suffix = "" if stream else Path(os.fspath(f)).suffix.lower()
    chosen = format or ("pytorch" if suffix in PYTORCH_SUFFIXES else "safetensors")
    if chosen not in ("safetensors", "pytorch"):
        raise ValueError(f"format should be 'safetensors' or 'pytorch', got {format!r}")
    if stream:
        whole = io.BytesIO()
        _write(obj, whole, chosen, "archive")
        f.write(whole.getbuffer())
    else:
        with replacing(f) as part:
            _write(obj, part, chosen, Path(os.fspath(f)).stem or "archive")


def _write(obj: Any, stream: IO[bytes], format: str, root: str) -> None:
    if format == "pytorch":
        from graphflow.serialization.pytorch_write import write_zip

        write_zip(stream, obj, root)
    else:
        safetensors.write(stream, *flatten(obj))


def load(f: Any, map_location: Any = None, *unused: Any, **also_unused: Any) -> Any:
    """Read what :func:`save` or PyTorch wrote: safetensors, ``.pt`` and ``.pth`` files.

    The content decides the format, not the name.  Nothing in a file is ever
    run: what is not data is an error that names it, as is a file that is
    damaged or whose sizes cannot be true.  Tensors come to the CPU
    (``map_location`` may say so).  Options of ``torch.load`` about pickling are
    accepted and mean nothing here.
    """
    _check_location(map_location)
    if hasattr(f, "read"):
        if not (hasattr(f, "seek") and f.seekable()):
            f = io.BytesIO(f.read())
        return _read(f, str(getattr(f, "name", "the stream")))
    try:
        with open(f, "rb") as stream:
            return _read(stream, os.fspath(f))
    except IsADirectoryError:
        raise GraphFlowError(f"{os.fspath(f)} is a folder, not a file") from None


def _check_location(location: Any) -> None:
    if location is None or callable(location):
        return
    for target in location.values() if isinstance(location, dict) else (location,):
        as_device(target)


def _read(stream: IO[bytes], file: str) -> Any:
    from graphflow.serialization.pytorch_read import LEGACY_START, read_legacy, read_zip

    start = stream.tell()
    head = stream.read(len(LEGACY_START))
    if start and (head.startswith(_ZIP_START) or head == LEGACY_START):
        stream.seek(start)  # both formats count from the start of the stream
        return _read(io.BytesIO(stream.read()), file)
    if head.startswith(_ZIP_START):
        return read_zip(stream, file)
    if head == LEGACY_START:
        return read_legacy(stream, file)
    if head[:1] == b"\x80" and head[4:9] != _LENGTH_THEN_JSON:
        raise GraphFlowError(f"{file}: a plain pickle, not a checkpoint; nothing was run")
    stream.seek(start)
    arrays, metadata = safetensors.read(stream, file)
    return rebuild(arrays, metadata, file)

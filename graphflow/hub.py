"""Models from folders and weights from addresses, with PyTorch's names.

``load`` runs a ``hubconf.py`` of a folder on this machine, as importing it
would; nothing is fetched from a repository.  Weights are data: nothing in them
is run.
"""

from __future__ import annotations

import builtins
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from graphflow.errors import GraphFlowError
from graphflow.runtime.folder import default_folder
from graphflow.serialization import load as load_file

__all__ = [
    "download_url_to_file", "get_dir", "help", "list", "load", "load_state_dict_from_url",
    "set_dir",
]  # fmt: skip

_HASH_IN_NAME = re.compile(r"-([a-f0-9]{8,64})\.")
_HASH_BEHIND = re.compile(r"sha256=([a-fA-F0-9]{8,64})")
_LIMIT = 64 << 30  # bytes
_chosen: Path | None = None


def get_dir() -> str:
    """Where fetched weights are kept: ``hub`` in the cache folder, unless :func:`set_dir`."""
    return str(_chosen or default_folder() / "hub")


def set_dir(d: str | os.PathLike[str]) -> None:
    """Keep fetched weights in another folder."""
    global _chosen
    _chosen = Path(d).expanduser()


def download_url_to_file(
    url: str, dst: str | os.PathLike[str], hash_prefix: str | None = None, progress: bool = True
) -> None:
    """Fetch a file; it appears under its name only when its SHA-256 begins with ``hash_prefix``."""
    from graphflow.utils.download import download  # imports all of urllib

    target = Path(dst)
    download([url], target, hash_prefix, _LIMIT, _reporter(target.name) if progress else None)


def _reporter(name: str) -> Callable[[int, int | None], None]:
    shown = [-1]

    def report(done: int, total: int | None) -> None:
        percent = done * 100 // total if total else 0
        if percent >= shown[0] + 10 or shown[0] < 0:
            shown[0] = percent
            print(f"{name}: {done >> 20} MB{f' ({percent} %)' if total else ''}", file=sys.stderr)

    return report


def load_state_dict_from_url(
    url: str,
    model_dir: str | os.PathLike[str] | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
    weights_only: bool = True,
) -> Any:
    """The content of a checkpoint at an address, fetched once.

    The checksum is the hexadecimal end of the file's name (``name-0676ba61.pth``)
    or ``#sha256=…`` behind the address.  ``check_hash`` insists on one.
    """
    parts = urlsplit(url)
    name = file_name or unquote(os.path.basename(parts.path))
    behind, inside = _HASH_BEHIND.search(parts.fragment), _HASH_IN_NAME.search(name)
    found = behind or (inside if check_hash else None)
    if check_hash and found is None:
        raise GraphFlowError(
            f"{url}: no checksum; the name should end in the first digits of the SHA-256 "
            "(name-0676ba61.pth), or #sha256=… stand behind the address"
        )
    checksum = found.group(1) if found else None
    folder = Path(model_dir) if model_dir is not None else Path(get_dir()) / "checkpoints"
    path = folder / name
    from graphflow.utils.download import mismatch

    if not path.is_file() or mismatch(path, checksum):
        if progress:
            print(f"fetching {url} to {path}", file=sys.stderr)
        download_url_to_file(parts._replace(fragment="").geturl(), path, checksum, progress)
    return load_file(path, map_location)


def load(
    repo_or_dir: str | os.PathLike[str],
    model: str,
    *args: Any,
    source: str = "github",
    trust_repo: Any = None,
    force_reload: bool = False,
    verbose: bool = True,
    skip_validation: bool = False,
    **kwargs: Any,
) -> Any:
    """Call the function ``model`` of the ``hubconf.py`` in a folder (``source="local"``)."""
    return _entry(_hubconf(repo_or_dir, source), model)(*args, **kwargs)


def list(
    github: str | os.PathLike[str], force_reload: bool = False, *, source: str = "local",
    **unused: Any,
) -> builtins.list[str]:  # fmt: skip
    """The functions that the ``hubconf.py`` in a folder offers."""
    module = _hubconf(github, source)
    return [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]


def help(
    github: str | os.PathLike[str], model: str, force_reload: bool = False, *,
    source: str = "local", **unused: Any,
) -> str | None:  # fmt: skip
    """The documentation of a function of the ``hubconf.py`` in a folder."""
    return _entry(_hubconf(github, source), model).__doc__


def _hubconf(folder: str | os.PathLike[str], source: str) -> ModuleType:
    if source != "local":
        raise GraphFlowError(
            f"hub does not fetch code (source={source!r}): clone {os.fspath(folder)!r}, look at "
            "it, and pass its folder with source='local'"
        )
    path = Path(folder) / "hubconf.py"
    if not path.is_file():
        raise GraphFlowError(f"hub: there is no {path}")
    spec = importlib.util.spec_from_file_location("hubconf", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(folder).absolute()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(Path(folder).absolute()))
    needed = getattr(module, "dependencies", [])
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise GraphFlowError(f"{path} needs packages that are not here: {', '.join(missing)}")
    return module


def _entry(module: ModuleType, name: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if not callable(found):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise GraphFlowError(f"{module.__file__} has no function {name!r}; it has {known}")
    return found  # type: ignore[no-any-return]

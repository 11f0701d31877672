"""Loading a model file: ``models/mlp.py`` or ``models/mlp.py:other_builder``."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphflow.errors import GraphFlowError
from graphflow.functions.creation import zeros
from graphflow.rng import randn
from graphflow.specs import TensorSpec

OTHERS = "frozen program (.gf), ONNX model (.onnx) or graph (.json, .txt)"
"""What the commands take beside Python files."""


def load_builder(argument: str) -> tuple[Any, tuple[Any, ...]]:
    """Run the builder of ``FILE[:name]``; returns the step and its specs."""
    path, name = split(argument)
    if not path.is_file():
        raise GraphFlowError(f"{path}: no such file")
    if path.suffix != ".py":
        raise GraphFlowError(f"{path}: not a Python file, {OTHERS}")
    path = path.resolve()
    with _importable(path.parent):
        module = _import(path)
        builder = getattr(module, name, None)
        if not callable(builder):
            raise GraphFlowError(
                f"{path} has no function {name}(); define one that returns (step, specs), "
                "what gf.compile takes and what gf.trace takes"
            )
        built = builder()
    if not isinstance(built, tuple) or len(built) != 2 or not callable(built[0]):
        raise GraphFlowError(f"{path}: {name}() must return (step, specs), got {built!r}")
    step, specs = built
    return step, tuple(specs) if isinstance(specs, (tuple, list)) else (specs,)


def example(spec: Any) -> Any:
    """A value of the type that ``spec`` describes: normal floats, zeros for the rest."""
    if not isinstance(spec, TensorSpec):
        return spec
    shape = tuple(extent if isinstance(extent, int) else 8 for extent in spec.shape)
    if spec.dtype.is_floating_point:
        return randn(shape, dtype=spec.dtype)
    return zeros(shape, dtype=spec.dtype)


def split(argument: str) -> tuple[Path, str]:
    """The path and the builder's name of ``FILE[:name]``."""
    file, colon, name = argument.rpartition(":")
    if not colon or not name.isidentifier():
        return Path(argument), "build"
    return Path(file), name


def _import(path: Path) -> Any:
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"_graphflow_model_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """What ``python FILE`` does: the file's folder comes first on the import path."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))

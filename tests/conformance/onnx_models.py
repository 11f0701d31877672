"""Models exported and run by ONNX Runtime: ``python -m tests.conformance.onnx_models``.

Every network of ``models/`` and of ``graphflow.vision``; outputs must be within 1e-4 of
what the network gives here, relative to the largest of them.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime

import graphflow as gf
from graphflow import nn, pytree
from graphflow.onnx import export
from graphflow.rng import Draw

FOLDER = Path(__file__).parents[2] / "models"
NEAR = 1e-4
BATCH = 3
CLASSES = 10
Entry = tuple[Callable[[], Any], tuple[gf.TensorSpec, ...]]


def _spec(*shape: Any, dtype: Any = gf.float32) -> gf.TensorSpec:
    return gf.TensorSpec(shape, dtype)


def entries() -> Iterator[tuple[str, Entry]]:
    """How each model is made, and what it takes; named extents become dynamic axes."""
    whole = gf.int64
    sys.path.insert(0, str(FOLDER))  # its files import one another
    modules = ("mlp", "cnn", "autoencoder", "bert", "gpt", "lstm", "seq2seq_attention", "resnet")
    mlp, cnn, autoencoder, bert, gpt, lstm, seq2seq, resnet = map(import_module, modules)
    quantized = import_module("quantized_resnet")
    specs = {"mlp": _spec("n", 784), "cnn": _spec("n", 1, 28, 28), "autoencoder": _spec("n", 784)}
    for name, module in (("mlp", mlp), ("cnn", cnn), ("autoencoder", autoencoder)):
        yield name, (lambda m=module: m.make()[0], (specs[name],))
    yield "linear_regression", (lambda: nn.Linear(3, 1), (_spec("n", 3),))
    yield "bert", (lambda: bert.make()[0], (_tokens(bert.specs()[0]),))
    yield "gpt", (lambda: gpt.make()[0], (_tokens(gpt.specs()[0]),))
    yield "lstm", (lambda: lstm.make()[0], (_tokens(lstm.specs()[0]),))
    yield "lstm_digits", (lstm.Reader, (_spec(2, 1, 28, 28),))
    pair = tuple(_spec(*s.shape, dtype=whole) for s in seq2seq.specs())
    yield "seq2seq_attention", (lambda: seq2seq.make()[0], pair)
    yield "resnet", (lambda: resnet.network(CLASSES), (_spec("n", 3, 32, 32),))
    yield "quantized_resnet", (quantized.network, (_spec("n", 1, 28, 28),))
    for name in gf.vision.models.list_models():
        extent = 75 if name == "inception_v3" else 64
        make = lambda n=name: gf.vision.models.get_model(n, num_classes=CLASSES)  # noqa: E731
        yield f"vision.{name}", (make, (_spec(1, 3, extent, extent),))


def _tokens(spec: Any) -> gf.TensorSpec:
    return _spec(*spec.shape, dtype=spec.dtype)


@contextlib.contextmanager
def weights_by_numpy() -> Iterator[None]:
    """Draw with NumPy's generator: VGG has 10^8 weights, and which numbers they are is all one."""
    rng = np.random.default_rng(0)

    def made(draw: Callable[..., Any]) -> Callable[..., gf.Tensor]:
        def numbers(_: Draw, shape: Any, dtype: Any, word: int = 0) -> gf.Tensor:
            return gf.from_numpy(draw(shape, np.float32)).to(dtype)

        return numbers

    with (
        mock.patch.object(Draw, "normal", made(rng.standard_normal)),
        mock.patch.object(Draw, "uniform", made(rng.random)),
    ):
        yield


def apart(make: Callable[[], Any], specs: tuple[gf.TensorSpec, ...]) -> float:
    """How far ONNX Runtime's outputs are from ours."""
    with weights_by_numpy():
        model = make().eval()
    rng = np.random.default_rng(0)
    given = []
    for spec in specs:
        shape = tuple(BATCH if isinstance(d, str) else d for d in spec.shape)
        drawn = rng.standard_normal(shape) if spec.dtype.is_floating_point else rng.integers(
            0, 8, shape)  # fmt: skip
        given.append(np.asarray(drawn, spec.dtype.numpy))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(model, specs, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options)
        names = [i.name for i in session.get_inputs()]
        found = session.run(None, dict(zip(names, given, strict=True)))
    with gf.no_grad():
        leaves = pytree.flatten(model(*map(gf.tensor, given)))[0]
    expected = [leaf.numpy() for leaf in leaves if isinstance(leaf, gf.Tensor)]
    if [a.shape for a in found] != [b.shape for b in expected]:
        return float("inf")
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))
               for a, b in zip(found, expected))  # fmt: skip


def main() -> int:
    """Export and run the models; 1 when one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.onnx_models")
    parser.add_argument("--models", default="", help="only those whose name has this in it")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    failed = []
    for name, (make, specs) in entries():
        if options.models not in name:
            continue
        started = time.monotonic()
        try:
            distance, note = apart(make, specs), ""
        except Exception as error:  # one model costs only itself
            distance, note = float("inf"), f" {type(error).__name__}: {error}"
        if not distance <= NEAR:
            failed.append(name)
        print(f"{name}: {distance:.1e} apart, {time.monotonic() - started:.0f} s{note}", flush=True)
    print(f"failed: {', '.join(failed) or 'none'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

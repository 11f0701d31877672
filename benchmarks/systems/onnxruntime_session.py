"""The inference workloads in ONNX Runtime, exported by PyTorch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.images import Residual
from benchmarks.systems import Prepared, shared
from benchmarks.workloads import Workload


def prepare(workload: Workload, threads: int) -> Prepared:
    """A session on the exported model."""
    if not isinstance(workload, Residual) or workload.training:
        raise NotImplementedError("ONNX Runtime only runs models forward")
    model, _ = shared.program(torch, workload)
    images = workload.data()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(model, (torch.from_numpy(images),), path, dynamo=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path.read_bytes(), options)
    name = session.get_inputs()[0].name

    def call() -> Any:
        return session.run(None, {name: images})[0]

    return Prepared(call, np.asarray)

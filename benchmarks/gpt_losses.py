"""The loss of ``models/gpt.py`` beside PyTorch's, at equal tokens.

    python -m benchmarks.gpt_losses --steps 600

The model file is written in the words that the two share, so PyTorch runs the very same
classes, loop and data: in its process the name ``graphflow`` means ``torch``.  All start
from the same weights, see the same batches, and are measured on the same files, which
none trains on.  ``bfloat16`` is GraphFlow with its products in ``autocast``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worker import answer_of, environment, parser_of
from graphflow.tables import duration, table

SYSTEMS = {
    "graphflow": "GraphFlow, compiled",
    "bfloat16": "GraphFlow, compiled, bfloat16",
    "torch": "PyTorch, eager",
}


def stand_in() -> Any:
    """PyTorch under GraphFlow's name, for the modules that are imported from now on."""
    # What the harness takes of GraphFlow besides its front stays GraphFlow's.
    import torch

    import graphflow.device
    import graphflow.inspect
    import graphflow.utils.progress  # noqa: F401

    for name in ("", ".nn", ".nn.functional", ".optim"):
        sys.modules[f"graphflow{name}"] = sys.modules[f"torch{name}"]
    torch.compile = lambda function: function  # type: ignore[assignment]
    return torch


def train(system: str, weights: Path, steps: int) -> dict[str, Any]:
    """Held-out loss after ``steps`` updates from ``weights`` (written if they are missing)."""
    framework = stand_in() if system == "torch" else __import__("graphflow")
    sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
    import gpt
    import text

    framework.manual_seed(0)
    model, optimizer = gpt.make()
    if weights.exists():
        found = {k: framework.from_numpy(v) for k, v in np.load(weights).items()}
        model.load_state_dict(found)
    else:
        np.savez(weights, **{k: v.numpy() for k, v in model.state_dict().items()})
    train_codes, held_out = text.corpus()
    progress = gpt.warm_cosine(optimizer, gpt.RATE)
    if system == "bfloat16":
        model.forward = framework.autocast("cpu")(model.forward)
    step = framework.compile(gpt.training_step(model, optimizer))
    begin = time.perf_counter()
    for done, batch in enumerate(text.Crops(train_codes, model.config.length, gpt.BATCH, steps, 0)):
        progress(done / steps)
        loss = step(*batch)
        if done == 0:
            first = float(loss)
    seconds = time.perf_counter() - begin
    return {"loss": gpt.held_out_loss(model, held_out), "first": first, "seconds": seconds}


def ask(system: str, weights: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What :func:`train` finds in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gpt_losses", "--system", system]
    command += ["--weights", str(weights), "--steps", str(options.steps)]
    answer: dict[str, Any] = answer_of(command, environment(options.threads))
    return answer


def main() -> None:
    """Train both and print."""
    parser = parser_of("gpt_losses", SYSTEMS)
    parser.add_argument("--steps", type=int, default=600, help="updates; 4,096 characters each")
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.system:
        print(json.dumps(train(options.system, options.weights, options.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {s: ask(s, Path(folder) / "weights.npz", options) for s in SYSTEMS}
    rows = [
        [SYSTEMS[s], f"{a['first']:.5f}", f"{a['loss']:.4f}", duration(a["seconds"])]
        for s, a in found.items()
    ]
    print(table(["nats a character", "first step", "held-out files", "training took"], rows))


if __name__ == "__main__":
    main()

"""A training run that is killed again and again, and must end as if nothing had happened.

    python -m tests.kill_and_resume --kills 20

The run saves a checkpoint after every step (parameters, optimiser, scheduler,
random numbers).  It is killed with SIGKILL at random moments, most of them
inside a step or inside a save, and started again; at the end its parameters
are compared bit by bit with those of a run that nobody killed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
WIDTH = 256


def train(path: pathlib.Path, steps: int) -> None:
    """Train to step ``steps``, from the checkpoint if there is one; print every step."""
    import graphflow as gf
    import graphflow.nn.functional as F
    from graphflow import nn, optim
    from graphflow.vision import datasets

    gf.manual_seed(1)
    layers = (nn.Linear(784, WIDTH), nn.ReLU(), nn.Dropout(0.2), nn.Linear(WIDTH, 10))
    model = nn.Sequential(*layers)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 10, 0.9)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    digits = datasets.Digits()
    pixels = digits.data.to(gf.float32).reshape(-1, 784) / 255

    @gf.compile
    def step(images, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    done = 0
    if path.exists():
        saved = gf.load(path)
        done = saved["step"]
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        gf.set_rng_state(saved["rng"])
    for number in range(done + 1, steps + 1):
        chosen = gf.randint(0, len(digits), (32,))
        step(pixels[chosen], digits.targets[chosen])
        scheduler.step()
        states = {name: part.state_dict() for name, part in parts.items()}
        gf.save({"step": number, "rng": gf.get_rng_state(), **states}, path)
        print(number, flush=True)


def start(path: pathlib.Path, steps: int) -> subprocess.Popen[str]:
    """The training run in a process of its own."""
    command = [sys.executable, "-m", "tests.kill_and_resume", "--train", str(path)]
    return subprocess.Popen(
        [*command, "--steps", str(steps)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def run(path: pathlib.Path, steps: int, kills: int, rng: random.Random) -> list[int]:
    """Run to the end, killed ``kills`` times on the way; the steps at which that happened."""
    killed = []
    while True:
        with start(path, steps) as process:
            assert process.stdout is not None
            if len(killed) < kills:
                first = process.stdout.readline()
                if not first:
                    raise AssertionError("the run did not start, or ended before it was killed")
                time.sleep(rng.uniform(0.0, 0.1))
                process.kill()
                lines = [first, *process.stdout]
                killed.append(int(lines[-1]) if lines[-1].endswith("\n") else int(first))
                continue
            process.stdout.read()
            if process.wait() != 0:
                raise AssertionError(f"the run could not go on after kills at {killed}")
            return killed


def digest(path: pathlib.Path) -> str:
    """A hash of the parameters and the optimiser's state in a checkpoint."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def torture(kills: int, seed: int, suffix: str = ".safetensors") -> str:
    """Kill and compare; raises AssertionError, or says what happened."""
    steps = 10 * kills + 10
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = (pathlib.Path(folder) / n / f"run{suffix}" for n in ("whole", "broken"))
        whole.parent.mkdir()
        broken.parent.mkdir()
        run(whole, steps, 0, random.Random(seed))
        killed = run(broken, steps, kills, random.Random(seed))
        assert digest(whole) == digest(broken), f"another result after kills at steps {killed}"
        assert os.listdir(broken.parent) == [broken.name], "a killed save left its file behind"
    return f"killed {kills} times, after steps {killed}: the same bits at step {steps}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train, options.steps)
    else:
        for suffix in (".safetensors", ".pt"):
            print(suffix, torture(options.kills, options.seed, suffix))


if __name__ == "__main__":
    main()

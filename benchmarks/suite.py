"""Every measurement in one run, and its figures in one folder: `make bench`.

    python -m benchmarks.suite --pytensor-python .venv-pytensor/bin/python
    python -m benchmarks.suite --quick            # does everything work? (a few minutes)
    python -m benchmarks.suite --folder benchmarks/results    # figures to keep

Sections are programs of their own and run one after the other, so that nothing else
disturbs them; one that fails is named at the end.  Written are ``NAME.json`` (all
figures), ``NAME.txt`` (all tables) and two plots, ``NAME.svg`` and ``NAME_curves.svg``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.systems import SYSTEMS
from graphflow.codegen.target import chosen_target
from graphflow.tables import duration

ALL = ",".join(SYSTEMS)
NEAREST = "static,torch,jax,ort"
"""Systems that the perturbed sizes are measured with: the fastest of the peers."""

Section = tuple[str, list[str]]


def sections(quick: bool, pytensor: str, plots: Path) -> list[Section]:
    """Names of the sections, and the commands after ``python -m`` (without ``--json``)."""
    main, turns = "benchmarks", ["--rounds", "2" if quick else "7"]
    twelve = "linreg,mlp,resnet18_infer" if quick else "twelve"
    convolutions = "conv3x3_128_128_16.forward" if quick else "convolutions"
    peers = ["--pytensor-python", pytensor]
    return [
        ("workloads", [main, "--workloads", twelve, "--systems", ALL, *peers, *turns,
                       "--plot", f"{plots}.svg"]),
        ("fresh processes", [main, "--workloads", twelve, "--systems", "static,eager,torch,jax",
                             "--rounds", "1", "--startup", "--fresh", "1" if quick else "3"]),
        ("fresh processes of compilers",
         [main, "--workloads", "mlp" if quick else "mlp,lstm,softmax",
          "--systems", "torch_compile,pytensor", *peers, "--rounds", "1",
          "--startup", "--fresh", "1"]),
        ("perturbed sizes", [main, "--workloads", "mlp_batch96" if quick else "perturbed",
                             "--systems", NEAREST, *turns]),
        ("5 ms of Python between calls",
         [main, "--workloads", "linreg,tiny,mlp", "--systems", "static,torch,jax",
          "--pause", "5", *turns]),
        ("AVX2", [main, "--workloads", "mlp" if quick else "mlp,cnn,gpt",
                  "--systems", "static,torch,jax", "--isa", "avx2", *turns]),
        ("convolutions of ResNet-18", [main, "--workloads", convolutions,
                                       "--systems", "static,torch", *turns]),
        ("curves", ["benchmarks.curves", "--rounds", "1" if quick else "3",
                    *(("--most-batch", "16", "--most-depth", "2") if quick else ()),
                    "--plot", f"{plots}_curves.svg"]),
        ("whole programs", ["benchmarks.epochs", "--rounds", "1" if quick else "3",
                            *(("--images", "3000", "--workloads", "mlp") if quick else ())]),
        ("latency of four callers", ["benchmarks.latency", "--rounds", "1" if quick else "3"]),
        ("memory", ["benchmarks.memory", *(("--workloads", "mlp") if quick else ())]),
    ]  # fmt: skip


def run(section: Section, folder: Path) -> tuple[str, Any]:
    """The tables that a section prints, and its figures; ``RuntimeError`` if it failed."""
    name, command = section
    path = folder / "figures.json"
    path.unlink(missing_ok=True)
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *command, "--json", str(path)],
        stdout=subprocess.PIPE,
        stderr=None,
        text=True,
        env=os.environ,
    )
    took = f"{name} ({duration(time.perf_counter() - begin)})"
    text = f"{took}\n{'=' * len(took)}\n\n{done.stdout.strip()}\n"
    print(f"\n{text}", flush=True)
    if done.returncode:
        raise RuntimeError(f"{name}: status {done.returncode}")
    return text, json.loads(path.read_text())


def default_name() -> str:
    """Date, processor and cores: ``2026-11-28_znver3_2cores``."""
    day = datetime.date.today().isoformat()
    return f"{day}_{chosen_target().cpu}_{os.cpu_count()}cores"


def main() -> None:
    """Run the sections and write what they found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="few rounds of small selections")
    parser.add_argument("--only", help="sections whose name contains this text")
    parser.add_argument("--folder", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--name", default=default_name(), help="of the files")
    parser.add_argument("--pytensor-python", default=sys.executable, metavar="PROGRAM")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    texts, figures, failed = [], {}, []
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        plots = options.folder / options.name
        for section in sections(options.quick, options.pytensor_python, plots):
            if options.only and options.only not in section[0]:
                continue
            try:
                text, figures[section[0]] = run(section, Path(place))
                texts.append(text)
            except RuntimeError as error:
                failed.append(str(error))
    (options.folder / f"{options.name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    (options.folder / f"{options.name}.txt").write_text("\n\n".join(texts))
    print(f"\n{duration(time.perf_counter() - begin)}; written to {plots}.*")
    if failed:
        raise SystemExit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()

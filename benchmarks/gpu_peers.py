"""Steps on a GPU beside PyTorch's, eager and compiled, and beside what the GPU can do.

    python -m benchmarks.gpu_peers                     # all, each in a process; a table last
    python -m benchmarks.gpu_peers gpt softmax         # some
    python -m benchmarks.gpu_peers --folder results    # and a JSON file

Within a process the systems take turns; what they compute is compared first.  A time is wall
clock: a number of calls and the wait for the last, over that number; medians of rounds.  All
are compiled beside each other before, so that compilers' caches are warm when time is taken.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.images import Residual
from benchmarks.networks import Language
from benchmarks.systems import shared
from benchmarks.workloads import MODELS, Expression, Training, Workload

ROUNDS, SECONDS = 5, 0.15
"""Rounds of turns, and how long a turn lasts at least."""
LONGEST = 200
"""Seconds that a process may take."""
LOW_PRECISION = {"gpt_large"}
"""Workloads that are trained in bfloat16 by autocast."""
WORKLOADS: dict[str, Workload] = {
    "tiny": MODELS["tiny"],
    "mlp": MODELS["mlp"],
    "gpt": MODELS["gpt"],
    "gpt_large": Language(
        "gpt_large", layers=12, batch=8, length=1024, width=1024, heads=16, vocabulary=32768
    ),
    "resnet18_256": Residual("resnet18_256", batch=256),
    "mish": Expression("mish", "mish", (1 << 26,)),
    "softmax": Expression("softmax", "softmax", (1 << 14, 1 << 12)),
    "layernorm": Expression("layernorm", "layernorm", (1 << 14, 1 << 12)),
    "gemm": Expression("gemm", "matmul", (4096, 4096, 4096)),
    "gemm_tf32": Expression("gemm_tf32", "matmul", (4096, 4096, 4096)),
    "gemm_bf16": Expression("gemm_bf16", "matmul", (4096, 4096, 4096)),
    "cnn": MODELS["cnn"],
    "lstm": MODELS["lstm"],
}
GROUPS = (
    ("mish", "softmax", "layernorm", "gemm", "gemm_tf32", "gemm_bf16"),
    ("tiny", "mlp", "cnn", "lstm"), ("gpt",), ("gpt_large",), ("resnet18_256",),
)  # fmt: skip
"""Workloads that share a process."""


@dataclass(frozen=True)
class System:
    """A framework, how it compiles (None: not at all), and how images lie for it."""

    name: str
    framework: Any
    compile: Callable[..., Any] | None
    format: Any = None

    def ready(self, workload: Workload) -> Callable[[], Any]:
        """One call of the workload, on data that lie on the GPU."""
        if isinstance(workload, Expression):
            return self._expression(workload)
        return self._step(workload)

    def _expression(self, workload: Expression) -> Callable[[], Any]:
        f, F = self.framework, self.framework.nn.functional
        functions: dict[str, Callable[..., Any]] = {
            "mish": lambda x: x * f.tanh(F.softplus(x)) * 0.5 + 1,
            "softmax": lambda x: F.softmax(x * 0.125, -1),
            "layernorm": lambda x, w, b: F.gelu(F.layer_norm(x, (x.shape[-1],), w, b)),
            "matmul": lambda a, b: a @ b,
        }
        f.backends.cuda.matmul.allow_tf32 = workload.name.endswith("tf32")
        inputs = [f.from_numpy(a).cuda() for a in workload.inputs()]
        if workload.name.endswith("bf16"):
            inputs = [a.to(f.bfloat16) for a in inputs]
        function = functions[workload.kind]
        function = function if self.compile is None else self.compile(function)
        return lambda: function(*inputs)

    def _step(self, workload: Any) -> Callable[[], Any]:
        f, own = self.framework, self.name == "GraphFlow"
        model, _ = shared.program(f, workload)
        model = model.to("cuda")
        if self.format is not None:
            model = model.to(memory_format=self.format)
        optimizer = _optimizer(f, workload, model)
        forward, update = model, optimizer.step
        if self.compile is not None and not own:
            forward, update = self.compile(model), self.compile(optimizer.step)
        if workload.name in LOW_PRECISION:
            forward = _autocast(f, forward)
        step = shared.timed(f, workload, forward, optimizer, update)
        step = self.compile(step) if own and self.compile is not None else step
        data = [f.from_numpy(np.ascontiguousarray(a)).cuda() for a in workload.data()]
        if self.format is not None:
            data[0] = data[0].contiguous(memory_format=self.format)
        return lambda: step(*data)


def _optimizer(framework: Any, workload: Any, model: Any) -> Any:
    """The workload's optimiser, of parameters that lie on the GPU."""
    optim, parameters = framework.optim, model.parameters()
    if isinstance(workload, Language):
        return optim.AdamW(parameters, lr=workload.lr, weight_decay=workload.weight_decay)
    if isinstance(workload, Training):
        return optim.SGD(parameters, lr=workload.lr, momentum=workload.momentum)
    return optim.SGD(parameters, lr=workload.lr)


def _autocast(framework: Any, model: Callable[..., Any]) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        with framework.autocast("cuda", dtype=framework.bfloat16):
            return model(x)

    return forward


def systems(workload: Workload) -> list[System]:
    """Who takes turns: GraphFlow first."""
    import torch

    import graphflow as gf

    plain = torch.arange  # positions of tokens are made where the model is
    torch.arange = lambda *a, **k: plain(*a, **{"device": "cuda", **k})
    found = [System("GraphFlow", gf, gf.compile)]
    formats = [None]
    if isinstance(workload, Residual):
        formats = [torch.contiguous_format, torch.channels_last]
    for number, format in enumerate(formats):
        last = " channels last" * number
        found.append(System(f"PyTorch eager{last}", torch, None, format))
        found.append(System(f"torch.compile{last}", torch, torch.compile, format))
    return found


def begun(name: str) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """What is called, by system, after a first call of each, and what that took.

    Raises AssertionError where results differ.
    """
    workload, calls, first = WORKLOADS[name], {}, {}
    wanted = None
    for system in systems(workload):
        begin = time.perf_counter()
        call = calls[system.name] = system.ready(workload)
        found = _number(call())
        first[system.name] = time.perf_counter() - begin
        wanted = found if wanted is None else wanted
        allowed = 2e-2 if name in LOW_PRECISION or "bf16" in name else 2e-3
        assert abs(found - wanted) <= allowed * max(1.0, abs(wanted)), (system.name, found, wanted)
    return calls, first


def measured(name: str) -> dict[str, Any]:
    """The medians in seconds by system, and everything beside them that the table shows."""
    import torch

    import graphflow as gf

    workload = WORKLOADS[name]
    calls, first = begun(name)
    profile = _profile(torch, calls["GraphFlow"])
    if workload.bytes:
        calls["copy"] = _copy(torch, workload.bytes // 8)
    counts = {who: _count(torch, call) for who, call in calls.items()}
    times: dict[str, list[float]] = {who: [] for who in calls}
    for _ in range(ROUNDS):
        for who, call in calls.items():
            times[who].append(_seconds(torch, call, counts[who]))
    return {
        "name": name, "seconds": {who: statistics.median(t) for who, t in times.items()},
        "spread": {who: max(t) / min(t) for who, t in times.items()}, "first": first,
        "flops": workload.flops, "bytes": workload.bytes, "kernels": profile,
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
        "graphflow": gf.__version__,
    }  # fmt: skip


def _number(result: Any) -> float:
    """A loss, or a sum over some of a result."""
    if result.ndim:
        result = result.reshape(-1)[:4096].float().abs().mean()
    return float(result.detach())


def _copy(torch: Any, count: int) -> Callable[[], Any]:
    """A copy on the device of so many float32 numbers."""
    source = torch.randn(count, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _seconds(torch: Any, call: Callable[[], Any], count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / count


def _count(torch: Any, call: Callable[[], Any]) -> int:
    """How many calls fill a turn, after some that warm up."""
    _seconds(torch, call, 5)
    return max(2, min(1000, int(SECONDS / _seconds(torch, call, 3))))


def _profile(torch: Any, call: Callable[[], Any]) -> list[tuple[str, float, float]]:
    """The kernels of one call: name, microseconds, times started."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(3):
            call()
        torch.cuda.synchronize()
    rows = sorted(found.key_averages(), key=lambda row: -row.device_time_total)
    return [(row.key[:80], row.device_time_total / 3, row.count / 3) for row in rows if row.count]


def table(found: Sequence[dict[str, Any]]) -> str:
    """One line a workload: GraphFlow, its ratio to each other system, its share of a limit."""
    lines = []
    for one in found:
        seconds = dict(one["seconds"])
        ours, copy = seconds.pop("GraphFlow"), seconds.pop("copy", None)
        ratios = ", ".join(f"{ours / t:.2f} of {who}" for who, t in seconds.items())
        limit = ""
        if copy:
            limit = f"; {copy / ours:.0%} of a copy's bandwidth"
        elif one["flops"]:
            limit = f"; {one['flops'] / ours * 1e-12:.1f} TFLOP/s"
        busy, count = (sum(row[n] for row in one["kernels"]) for n in (1, 2))
        lines.append(
            f"{one['name']:13} {ours * 1e6:9.1f} us ({busy:.0f} of {count:.0f} kernels and "
            f"copies), {ratios}{limit}; first call {one['first']['GraphFlow']:.1f} s"
        )
    return "\n".join(lines)


def _started(names: Sequence[str], *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.gpu_peers", *names, "--child", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _answers(names: Sequence[str], process: subprocess.Popen[str]) -> list[dict[str, Any] | str]:
    """What a process found, and the end of what it complained about if that is not all."""
    try:
        said, wrong = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        said, wrong = process.communicate()
        wrong = f"longer than {LONGEST} s; {wrong}"
    found: list[dict[str, Any] | str] = []
    found += [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    if len(found) < len(names):
        found.append(f"{', '.join(names[len(found) :])}: FAILED: {wrong[-800:]}")
    return found


def _child(names: Sequence[str], only_first: bool) -> None:
    import torch

    for name in names:
        if only_first:
            begun(name)
        print(json.dumps({} if only_first else measured(name)), flush=True)
        torch._dynamo.reset()
        torch.cuda.empty_cache()


def main() -> int:
    """Measure; 1 if a workload fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(WORKLOADS)}")
    parser.add_argument("--folder", type=pathlib.Path, help="for a JSON file of everything")
    parser.add_argument("--cold", action="store_true", help="compile nothing before")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.names, options.first)
        return 0
    if find_spec("torch") is None:
        print("PyTorch is not installed: nothing to compare with")
        return 0
    wanted = options.names or list(WORKLOADS)
    groups = [found for group in GROUPS if (found := [n for n in group if n in wanted])]
    if not options.cold:
        for names, process in [(names, _started(names, "--first")) for names in groups]:
            _answers(names, process)
    answers = [answer for names in groups for answer in _answers(names, _started(names))]
    found = [answer for answer in answers if isinstance(answer, dict)]
    if options.folder and found:
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        gpu = found[0]["gpu"].removeprefix("NVIDIA ").replace(" ", "_").lower()
        (options.folder / f"{day}_{gpu}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    print("\n".join(answer for answer in answers if isinstance(answer, str)))
    return int(len(found) < len(wanted))


if __name__ == "__main__":
    sys.exit(main())

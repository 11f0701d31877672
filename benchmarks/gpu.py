"""Everything that only a GPU can show, in one run of less than eight minutes.

    python -m benchmarks.gpu              # on a machine with a GPU; ends with a short table
    python -m benchmarks.gpu --simulate   # tries this script itself, in Numba's simulator

Kernels are built and checked, then memory that is lent, page-locked memory, replay of steps as
CUDA graphs, products, several devices and faults, each for itself: what fails is a line of the
table and the exit code.  Without a GPU it says what is missing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

if "--simulate" in sys.argv:
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"

import numpy as np

import graphflow as gf
from graphflow.codegen.cuda.toolchain import state
from graphflow.runtime.cuda import kernels

SECONDS = 420.0
"""After so many no further section is begun."""
FAULTY = """
import numpy as np, graphflow as gf
from graphflow.codegen.cuda.toolchain import toolchain
cuda = toolchain().cuda
@cuda.jit
def wild(x):
    x[1 << 40] = 1
x = gf.ones(4).cuda()
wild[1, 1](x._eager().block.view(0, np.dtype(np.float32)))
try:
    x.tolist()
except gf.errors.DeviceLostError as error:
    print("said:", str(error)[:60])
"""


class Run:
    """Sizes and repeats: of use, or as small as can be for the simulator."""

    def __init__(self, simulated: bool) -> None:
        self.simulated = simulated
        self.repeats = 2 if simulated else 50

    def size(self, real: int, tiny: int = 4) -> int:
        """An extent."""
        return tiny if self.simulated else real

    def seconds(self, call: Callable[[], Any]) -> float:
        """The median time of a call whose work is waited for, after two that warm up."""
        times = []
        for n in range(self.repeats + 2):
            begin = time.perf_counter()
            call()
            gf.cuda.synchronize()
            if n >= 2:
                times.append(time.perf_counter() - begin)
        return statistics.median(times)


def operations(run: Run) -> str:
    """Every operation's kernels against the interpreter."""
    names = ["tanh"] if run.simulated else []
    done = subprocess.run(
        [sys.executable, "-m", "tests.cudasim", "--quick", "--seconds", "120", *names],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": str(int(run.simulated))},
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1]
    assert done.returncode == 0, last
    return last


def lending(run: Run) -> str:
    """Memory lent and borrowed: with PyTorch and CuPy where they are."""
    x = gf.arange(12.0).reshape(3, 4).cuda()
    assert gf.as_tensor(x._eager()).tolist() == x.tolist()
    tried = ["array interface"]
    for name in ("torch", "cupy"):
        try:
            other: Any = __import__(name)
        except ImportError:
            continue
        if run.simulated or (name == "torch" and not other.cuda.is_available()):
            continue
        theirs = other.from_dlpack(x.t())
        theirs += 1
        assert x.tolist() == (np.arange(12.0).reshape(3, 4) + 1).tolist(), name
        assert gf.from_dlpack(theirs).tolist() == x.t().tolist(), name
        assert gf.as_tensor(theirs).tolist() == x.t().tolist(), name
        theirs -= 1
        tried.append(name)
    return ", ".join(tried)


def pinned(run: Run) -> str:
    """Copies to the device from page-locked memory and from ordinary."""
    x = gf.rand(run.size(1 << 24))
    held = x.pin_memory()
    assert held.is_pinned() and held.to("cuda", non_blocking=True).tolist()[:4] == x.tolist()[:4]
    rates = [x.numel() * 4e-9 / run.seconds(call) for call in (
        lambda: x.to("cuda"), lambda: held.to("cuda", non_blocking=True),
    )]  # fmt: skip
    return f"{rates[0]:.1f} GB/s from ordinary memory, {rates[1]:.1f} from page-locked"


def replay(run: Run) -> str:
    """A training step, replayed and not, and whether it learns as on the CPU."""
    found = []
    for name in ("mlp", *(() if run.simulated else ("gpt", "mlp-wide", "gpt-wide"))):
        times, text, wanted = [], "", _losses(name, "cpu", 2 if run.simulated else 6)[1]
        for on in (True, False):
            gf.backends.cuda.replay = on
            step, losses = _losses(name, "cuda", len(wanted))
            np.testing.assert_allclose(losses, wanted, rtol=2e-3)
            times.append(run.seconds(step))
            if on:
                text = str(step.compiled.explain())
        gf.backends.cuda.replay = True
        line = next(line for line in text.splitlines() if line.startswith("device:"))
        found.append(f"{name} {times[0] * 1e6:.0f} us ({times[1] * 1e6:.0f} walked; {line})")
    return "\n".join(found)


def _losses(name: str, device: str, count: int) -> tuple[Any, list[float]]:
    from tests.cudasim.models import step_of

    step, _, batch = step_of(name, device)
    gf.manual_seed(5)
    compiled = gf.compile(step)
    losses = [float(compiled(*batch)) for _ in range(count)]

    def call() -> None:
        compiled(*batch)

    call.compiled = compiled  # type: ignore[attr-defined]
    return call, losses


def products(run: Run) -> str:
    """Products of square matrices, by the library and by our kernels: right, and how fast."""
    found = []
    n = run.size(4096)
    data = np.random.default_rng(0).normal(size=(2, n, n)).astype(np.float32)
    wanted = data[0, :4].astype(np.float64) @ data[1].astype(np.float64)
    dtypes = ((gf.float32, 1e-4), (gf.float32, 5e-3), (gf.float16, 1e-2), (gf.bfloat16, 5e-2))
    both = [(True, n == 1, *case) for n, case in enumerate(dtypes)]
    both += [(False, False, *case) for n, case in enumerate(dtypes) if n != 1]
    for library, allowed, dtype, tolerance in both:
        gf.backends.cuda.library, gf.backends.cuda.matmul.allow_tf32 = library, allowed
        a, b = (gf.tensor(m).cuda().to(dtype) for m in data)
        step = gf.compile(lambda a, b: a @ b)
        rows = step(a, b)[:4].float().cpu().numpy()
        assert np.abs(rows - wanted).max() <= tolerance * np.abs(wanted).max(), dtype
        seconds = run.seconds(lambda step=step, a=a, b=b: step(a, b))
        rate = f"{2e-12 * n**3 / seconds:.2f} TFLOP/s"
        who = next(x for x in str(step.explain()).splitlines() if x.startswith("products: "))
        found.append(f"{dtype.name}{' allowing TF32' * allowed} {rate} ({who})")
    gf.backends.cuda.library, gf.backends.cuda.matmul.allow_tf32 = True, False
    return "\n".join(found)


def eager(run: Run) -> str:
    """What one eager operation costs."""
    x = gf.ones(run.size(1024)).cuda()
    return f"{run.seconds(lambda: x * 2) * 1e6:.0f} us"


def devices(run: Run) -> str:
    """The same step on every device."""
    step = gf.compile(lambda x: (x @ x.T).softmax(1))
    x = gf.rand(run.size(64), run.size(64))
    for n in range(gf.cuda.device_count()):
        there = x.to(f"cuda:{n}")
        found = step(there)
        assert str(found.device) == f"cuda:{n}"
        np.testing.assert_allclose(found.cpu().numpy(), step(x).numpy(), rtol=1e-4)
        assert there.to("cuda:0").tolist() == x.tolist()
    return f"{gf.cuda.device_count()} tried"


def faults(run: Run) -> str:
    """Too much memory, then, in a process of its own, a kernel that writes where it must not."""
    if run.simulated:
        return "not in the simulator"
    try:
        many = [gf.zeros(1 << 34, dtype=gf.uint8).cuda() for _ in range(64)]
        return f"{len(many) << 34} bytes fit"
    except gf.errors.OutOfMemoryError:
        assert gf.ones(2).cuda().tolist() == [1, 1]
    done = subprocess.run(
        [sys.executable, "-c", FAULTY], capture_output=True, text=True, timeout=120
    )
    assert "said:" in done.stdout, done.stderr[-300:]
    return "out of memory and an illegal address are said"


SECTIONS: tuple[Callable[[Run], str], ...] = (
    lending, pinned, devices, eager, products, replay, operations, faults,
)  # fmt: skip


def main() -> int:
    """Run everything; 1 if something fails or there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulate", action="store_true", help="in the simulator, tiny")
    parser.add_argument("--only", default="", help="these sections, with commas between")
    options = parser.parse_args()
    run, only = Run(options.simulate), options.only.split(",")
    if not state().usable:
        print(f"no GPU to measure on: {state()}")
        return 1
    started, rows, failed = time.perf_counter(), [], 0
    for section in SECTIONS:
        if options.only and section.__name__ not in only:
            continue
        begin = time.perf_counter()
        said = "left out: no time is left"
        if begin - started < SECONDS:
            try:
                said = section(run)
            except Exception as error:
                failed += 1
                said = f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        rows += [(section.__name__, time.perf_counter() - begin, line) for line in said.split("\n")]
        print(f"{section.__name__}: {said}", flush=True)
    print(f"\n{state()}; {kernels.counts.compiled} kernels compiled, "
          f"{kernels.counts.found} found, {time.perf_counter() - started:.0f} s")  # fmt: skip
    for name, seconds, line in rows:
        print(f"{name:12} {seconds:6.1f} s  {line}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

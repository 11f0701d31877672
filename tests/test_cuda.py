"""The CUDA back end in the simulator, in processes of its own.

The simulator is chosen when Python starts.  More of the same: ``make test-cudasim``, and
``make test-ptx``, which compiles every kernel.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def run(*arguments: str, simulated: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1" if simulated else "0"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, text=True,
        capture_output=True, timeout=600,
    )  # fmt: skip


def test_operations_agree_with_the_interpreter() -> None:
    done = run("-m", "tests.cudasim", "--quick")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = re.search(r"agree: (\d+) of (\d+) operations", done.stdout)
    assert found is not None and int(found[2]) > 100, done.stdout


PARTS = (
    "vectors",
    "convolutions",
    "tensors functions",  # these do not take long
    "library quick",
    "replay allocator several pinned lending devices precision",
)


SHORT = "not residual_network and not rows_in_several_passes"
"""What takes minutes more is run by ``make test-cudasim``: the contrary, attention and columns."""


@pytest.mark.parametrize("parts", PARTS)
def test_on_a_device(parts: str) -> None:
    paths = [f"tests/cudasim/simulated_{part}.py" for part in parts.split()]
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *paths, "-k", SHORT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_training_steps_agree_with_the_cpu() -> None:
    done = run("-m", "tests.cudasim.models", "mlp", "cnn")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("3 steps") == 2, done.stdout


def test_the_vocabulary_of_compiled_kernels_is_there() -> None:
    program = (
        "from graphflow.codegen.cuda import prelude\n"
        "from graphflow.codegen.vector_math import FUNCTIONS\n"
        "assert all(hasattr(prelude, name) for name in prelude.__all__)\n"
        "assert all(hasattr(prelude.vm, name) for name in FUNCTIONS)\n"
    )
    done = run("-W", "ignore", "-c", program, simulated=False)
    assert done.returncode == 0, done.stderr


def test_a_machine_without_a_gpu_says_what_is_missing() -> None:
    program = (
        "from graphflow.errors import GraphFlowError\n"
        "from graphflow.runtime.cuda.memory import DeviceArray\n"
        "import numpy as np\n"
        "try:\n"
        "    DeviceArray.of(np.zeros(3))\n"
        "except GraphFlowError as error:\n"
        "    print(error)\n"
    )
    done = run("-c", program, simulated=False)
    assert done.returncode == 0, done.stderr
    if done.stdout:
        assert "CUDA cannot be used here" in done.stdout
        assert "NUMBA_ENABLE_CUDASIM=1" in done.stdout


def test_the_script_for_a_gpu_runs_to_its_table() -> None:
    done = run("-m", "benchmarks.gpu", "--simulate", "--only", "lending,pinned,devices,products")
    assert done.returncode == 0 and "FAILED" not in done.stdout, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("TFLOP/s") == 14 and "simulator" in done.stdout
    there = run("-m", "benchmarks.gpu", "--only", "lending", simulated=False)
    assert there.returncode == 0 or "no GPU to measure on" in there.stdout, there.stderr

"""Machine code of CUDA kernels in the cache: a second process compiles none.

Needs numba-cuda, but no GPU and no driver; run by ``make test-ptx``.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from graphflow.codegen.cuda.assemble import assemble, entry_of, resources
from graphflow.codegen.cuda.compile import ptx, ready, signature
from graphflow.codegen.schedule import Call, KernelSource, plain_steps
from graphflow.errors import CompileError
from tests.cudasim.calls import chosen, schedule_of

PROGRAM = """
from graphflow.runtime.cuda import kernels
from tests.cudasim.stored_kernels import sources
for kernel in sources():
    for capability in ((8, 0), (9, 0)):
        assert kernels.machine_code(kernel, capability)[:4] == b"\\x7fELF"
        kernels.machine_code(kernel, capability)
print(kernels.counts.found, kernels.counts.compiled)
"""


def sources() -> list[KernelSource]:
    """The kernels of two operations: an elementwise one and a scan."""
    steps = [
        step
        for case in chosen(("tanh", "reduce_sum", "cumsum"), 1)
        for step in plain_steps(schedule_of(case).steps)
        if isinstance(step, Call)
    ]
    return list(dict.fromkeys(step.kernel for step in steps))


def counted(folder: pathlib.Path) -> list[int]:
    """How many kernels a process of its own found in ``folder``, and compiled."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], text=True, capture_output=True, timeout=300,
        env={**os.environ, "GRAPHFLOW_CACHE_DIR": str(folder), "NUMBA_ENABLE_CUDASIM": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [int(word) for word in done.stdout.split()]


def test_a_second_process_compiles_nothing(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o700)
    many = 2 * len(sources())
    assert many >= 4
    assert counted(tmp_path) == [0, many]
    assert counted(tmp_path) == [many, 0]
    damaged = sorted(tmp_path.glob("*.cubin"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert counted(tmp_path) == [many - 1, 1]


def test_sizes_in_the_code_are_those_that_the_assembler_reports() -> None:
    nvjitlink = pytest.importorskip("cuda.bindings.nvjitlink")
    for kernel in sources():
        text = ptx(kernel, (9, 0))
        handle = nvjitlink.create(2, ["-arch=sm_90", "-verbose"])
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, text.encode(), len(text), "kernel")
        nvjitlink.complete(handle)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
        nvjitlink.destroy(handle)
        found = resources(assemble(text, (9, 0)))
        said = re.findall(
            r"used (\d+) registers.* (\d+) stack(?:, (\d+) bytes smem)?", log.decode()
        )
        assert [int(word or 0) for word in said[-1]] == [
            found.registers, found.frame, found.shared,
        ]  # fmt: skip


def test_what_is_wrong_with_a_text_is_said() -> None:
    with pytest.raises(CompileError, match="sm_90"):
        assemble("no PTX", (9, 0))
    with pytest.raises(CompileError, match="ELF"):
        resources(b"no machine code")


def test_stored_code_becomes_the_kernel_of_its_one_signature() -> None:
    """Everything up to the driver, which loads the code at the first launch."""
    for kernel in sources():
        code = assemble(ptx(kernel, (8, 0)), (8, 0))
        (made,) = ready(kernel, code, (8, 0)).overloads.values()
        assert made.argument_types == tuple(signature(kernel).args)
        assert made.entry_name == entry_of(code) and kernel.name in made.entry_name
        assert made.library.get_cubin((8, 0, "")).code == code

"""Machine code of CUDA kernels in the cache: a second process compiles none.

Needs numba-cuda, but no GPU and no driver; run by ``make test-ptx``.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from graphflow.codegen.cuda.assemble import assemble, entry_of, resources
from graphflow.codegen.cuda.compile import ptx
from graphflow.codegen.schedule import Call, KernelSource, plain_steps
from graphflow.errors import CompileError
from graphflow.runtime.cuda import compiling, kernels
from tests.cudasim.calls import chosen, schedule_of

PROGRAM = """
from graphflow.runtime.cuda import compiling, kernels
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


BESIDE = """
import os, sys
from graphflow.codegen.cuda import assemble
from graphflow.runtime.cuda import compiling, kernels
from tests.cudasim.stored_kernels import sources
compiling.EACH = 1
os.sched_getaffinity = lambda pid: range(2)
many = sources()
broken = type(many[0])("broken", "def broken(:", launch=many[0].launch)
kernels.prepare([*many, broken], (9, 0))
apart = kernels.counts.compiled
codes = [kernels.machine_code(kernel, (9, 0)) for kernel in many]
alone = [kernels.assemble(kernels.ptx(kernel, (9, 0)), (9, 0)) for kernel in many]
needs = [[assemble.resources(code) for code in made] for made in (codes, alone)]
named = all(k.name in assemble.entry_of(code) for k, code in zip(many, codes))
print(len(many), apart, kernels.counts.compiled, named and needs[0] == needs[1])
kernels.prepare(many, (9, 0))
try:
    kernels.machine_code(broken, (9, 0))
except Exception as error:
    print(type(error).__name__)
"""


def test_kernels_compiled_beside_each_other_are_the_same(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", BESIDE], text=True, capture_output=True, timeout=300,
        env={**os.environ, "GRAPHFLOW_CACHE_DIR": str(tmp_path), "NUMBA_ENABLE_CUDASIM": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (total, apart, compiled, equal), (error,) = map(str.split, done.stdout.splitlines())
    assert int(total) >= 2 and total == apart == compiled and equal == "True"
    assert error == "SyntaxError" or error == "CompileError", "what does not compile is said later"


def test_few_kernels_or_processors_are_not_worth_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(4), raising=False)
    each, most = compiling.EACH, compiling.MOST_PROCESSES
    counts = [compiling.processes(n) for n in (0, each, 2 * each, 4 * each, 100 * each)]
    assert counts == [0, 1, 2, 4, 4]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64))
    assert compiling.processes(100 * each) == most
    monkeypatch.setattr(sys, "executable", "")
    assert compiling.processes(100 * each) == 0


def test_a_process_that_fails_leaves_its_kernels_to_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert compiling.compiled_apart(sources(), (9, 0), 2) == {}
    monkeypatch.setattr(sys, "executable", "/there/is/none")
    assert compiling.compiled_apart(sources(), (9, 0), 2) == {}


class Calls:
    """Notes what the driver is asked to load, and reads the parameters of launches."""

    def __init__(self) -> None:
        self.launched: list[tuple[Any, ...]] = []

    def asked(self, name: str, *arguments: Any) -> Any:
        if name != "cuLaunchKernel":
            return name, *arguments
        *_, where, extra = arguments
        count = len(self.words)
        pointers = (ctypes.c_void_p * count).from_address(where)
        read = [ctypes.c_int64.from_address(at).value for at in pointers]
        self.launched.append((*arguments[:-2], read, extra))
        return None

    words: Sequence[int] = ()


def test_stored_code_is_started_with_the_parameters_it_declares() -> None:
    """Everything up to the driver, which loads the code at the first launch."""
    calls: Any = Calls()
    for kernel in sources():
        launch = kernel.launch
        assert launch is not None
        text = ptx(kernel, (8, 0))
        code = assemble(text, (8, 0))
        declared = re.findall(r"\.param \.(\w+) \w+_param_\d+", text.partition(")")[0])
        arrays = [kernels.array_words(4096 + 16 * n, 40, 4) for n in range(len(launch.elements))]
        words = [*(word for one in arrays for word in one), *range(launch.integers)]
        assert len(declared) == len(words) and set(declared) == {"u64"}, "as Numba passes them"
        assert arrays[0] == (0, 0, 10, 4, 4096, 10, 4)
        calls.words = words
        kernels.Loaded(code, calls).starter(7, 128, words)(9)
        _, module, name = calls.launched[-1][0]
        assert name.decode() == entry_of(code) and kernel.name in name.decode()
        assert module == ("cuModuleLoadData", code)
        assert calls.launched[-1][1:] == (7, 1, 1, 128, 1, 1, 0, 9, words, 0)

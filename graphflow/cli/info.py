"""Show versions, CPU, threads, the kernel cache and CUDA."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import sys
from importlib import metadata

from graphflow import flags
from graphflow.codegen.cuda.convolution import Convolution
from graphflow.codegen.cuda.toolchain import INSTALL, installed, is_simulated
from graphflow.codegen.target import chosen_target
from graphflow.runtime import cache
from graphflow.runtime.cuda.library import not_installed
from graphflow.runtime.folder import default_folder
from graphflow.runtime.threads import get_num_threads
from graphflow.tables import quantity
from graphflow.version import __version__

_PACKAGES = ("numpy", "numba", "llvmlite", "networkx", "ml_dtypes", "numba-cuda")
_MISSING = "not installed"
_NOTABLE = ("avx2", "fma", "avx512f", "avx512bw", "avx512vnni", "avx512bf16", "amx-int8", "neon",
            "dotprod", "sve")  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``graphflow info``."""
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> None:
    """Print one line a fact."""
    if options.json:
        print(json.dumps(dict(facts()), indent=2))
        return
    for name, value in facts():
        print(f"{name:<14}{value}")


def facts() -> list[tuple[str, str]]:
    """Names and values, in the order they are shown."""
    target = chosen_target()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    notable = [name for name in _NOTABLE if name in target.enabled]
    python = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    return [
        ("graphflow", __version__),
        ("python", python),
        *((name, _version(name)) for name in _PACKAGES),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("cpu", f"{target.cpu}, {8 * target.vector_bytes}-bit vectors: {' '.join(notable)}"),
        ("threads", f"{get_num_threads()} of {cores} cores this process may use"),
        ("cache", f"{default_folder()}, {quantity(cache.size())}"),
        ("cuda", _cuda()),
        ("cuda kernels", _kernels()),
        ("cuda products", _products()),
        ("convolutions", _convolutions()),
        ("flags", _flags()),
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return _MISSING


def _flags() -> str:
    changed = [f for f in flags.FLAGS if f.value != f.default]
    return " ".join(f"{flag.name}={flag.value}" for flag in changed) or "none set"


def _kernels() -> str:
    """What compiles and runs CUDA kernels here, or what is missing for it."""
    found = installed()
    if is_simulated():
        return f"{' '.join(found[0][:2])}, in the simulator"
    if not found or found[0][0] == "numba":
        return f"numba-cuda is not installed: {INSTALL}"
    return " ".join(found[0][:2])


def _products() -> str:
    """What would compute products there beside our own kernels, or what is missing for it."""
    missing = not_installed()
    if missing:
        return f"kernels of our own; {missing}"
    library = _version("nvidia-cublas")
    where = "that of the system" if library == _MISSING else f"nvidia-cublas {library}"
    return f"cuBLASLt ({where}) by nvmath-python {_version('nvmath-python')}"


def _convolutions() -> str:
    """The same for convolutions."""
    missing = not_installed(Convolution)
    if missing:
        return f"kernels of our own; {missing}"
    found = [p for p in ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12") if _version(p) != _MISSING]
    where = f"{found[0]} {_version(found[0])}" if found else "that of the system"
    return f"cuDNN ({where}) by nvidia-cudnn-frontend {_version('nvidia-cudnn-frontend')}"


def _cuda() -> str:
    """What the CUDA driver says of itself, asked directly so that nothing need be installed."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return "no driver"
    version, count = ctypes.c_int(), ctypes.c_int()
    status = driver.cuInit(0)
    if status:
        return f"the driver does not start (error {status})"
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetCount(ctypes.byref(count))
    names = [_device_name(driver, index) for index in range(count.value)]
    number = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return f"driver for CUDA {number}, {', '.join(names) or 'no device'}"


def _device_name(driver: ctypes.CDLL, index: int) -> str:
    device, buffer = ctypes.c_int(), ctypes.create_string_buffer(128)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(buffer, len(buffer), device)
    return buffer.value.decode(errors="replace")

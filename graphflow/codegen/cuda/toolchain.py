"""The one place that imports a CUDA target of Numba, whichever is installed.

Three packages offer ``numba.cuda``: *numba-cuda* (NVIDIA's, which replaces the module of
that name), Numba's own older one, and *numba-cuda-mlir*.  All have the simulator, in
which kernels run as Python (``NUMBA_ENABLE_CUDASIM=1``).  Nothing here needs a GPU;
:func:`state` says what was found and what is missing.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from functools import cache
from types import ModuleType
from typing import Any

from graphflow.errors import GraphFlowError
from graphflow.records import dataclass

SIMULATOR = "NUMBA_ENABLE_CUDASIM"
_PACKAGES = (
    ("numba-cuda", "numba.cuda"),
    ("numba-cuda-mlir", "numba_cuda_mlir.cuda"),
    ("numba", "numba.cuda"),
)
INSTALL = 'pip install "graphflow[cuda]"'


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A CUDA target: the package it comes from, its version and its ``cuda`` module."""

    package: str
    version: str
    cuda: Any

    @property
    def simulated(self) -> bool:
        """Whether kernels run as Python in the simulator."""
        return is_simulated()

    def module(self, name: str) -> Any:
        """Module ``name`` of the target; Numba's own target shares them with the CPU's."""
        names = [f"{self.cuda.__name__}.{name}"]
        if self.package == "numba":
            names = [f"numba.core.{name}", f"numba.{name}", *names]
        for candidate in names:
            try:
                return importlib.import_module(candidate)
            except ImportError:
                continue
        raise GraphFlowError(f"{self.package} {self.version} has no module {name!r}")


def is_simulated() -> bool:
    """Whether this process was started for the simulator."""
    return os.environ.get(SIMULATOR, "0") not in ("", "0")


def installed() -> list[tuple[str, str, str]]:
    """Package, version and module of every CUDA target, the preferred one first.

    Nothing is imported.
    """
    found = []
    for package, module in _PACKAGES:
        version = version_of(package)
        if version is not None:
            found.append((package, version, module))
    return found


def version_of(package: str) -> str | None:
    """The version of an installed package, None if there is none.

    How that is found out takes longer to import than this package does.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def find() -> Toolchain | None:
    """The installed CUDA target that can be imported, or None."""
    for package, version, module in installed():
        found = _imported(module)
        if found is not None:
            return Toolchain(package, version, found)
    return None


def _imported(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def toolchain() -> Toolchain:
    """The CUDA target; an error that says what to install without one."""
    found = find()
    if found is None:
        raise GraphFlowError(f"no CUDA target of Numba is installed; {INSTALL} installs one")
    return found


@dataclass(frozen=True, slots=True)
class State:
    """What :func:`state` found: ``usable`` tells whether kernels can run here."""

    package: str
    simulated: bool
    devices: tuple[str, ...]
    problem: str

    @property
    def usable(self) -> bool:
        """Whether there is a device, real or simulated."""
        return bool(self.devices)

    def __str__(self) -> str:
        if self.simulated:
            return f"{self.package}, simulator (kernels run as Python)"
        if self.devices:
            return f"{self.package}; {', '.join(self.devices)}"
        return self.problem


@cache
def state() -> State:
    """What was found: the package, the devices, and what is missing if there are none."""
    there = installed()
    if not there:
        return State("", False, (), f"no CUDA target is installed: {INSTALL}")
    package = " ".join(there[0][:2])
    if is_simulated():
        return State(package, True, ("simulator",) * _simulated_devices(), "")
    driver = _driver_version()
    if driver is None:
        return State(package, False, (), "there is no CUDA driver here")
    compiler = _compiler_version()
    if compiler is not None and driver < compiler:
        return State(package, False, (), _too_old(driver, compiler))
    found = toolchain()
    try:
        names = tuple(_name(device) for device in found.cuda.gpus)
    except Exception as error:  # drivers fail in many ways, all of which mean: no device
        reason = " ".join(str(error).split()) or type(error).__name__
        return State(package, False, (), f"the CUDA driver found no GPU: {reason}")
    return State(package, False, names, "" if names else "the driver reports no GPU")


def _simulated_devices() -> int:
    """One, or as many as ``CUDA_VISIBLE_DEVICES`` lists: the way to try several without any."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return max(1, sum(name.strip().isdigit() for name in listed))


def _driver_version() -> int | None:
    """The generation of CUDA that the driver is for, None without one.

    Asked first, since importing a target is slow.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value // 1000


def _compiler_version() -> int | None:
    """The generation of CUDA that compiles, None where it is not known."""
    version = version_of("nvidia-nvvm")
    try:
        return int(version.partition(".")[0]) if version else None
    except ValueError:
        return None


def _too_old(driver: int, compiler: int) -> str:
    return (
        f"the driver is for CUDA {driver} and what compiles kernels for CUDA {compiler}: update "
        f'the driver, or pip install "numba-cuda[cu{driver}]"'
    )


def _name(device: Any) -> str:
    name = device.name
    return name.decode() if isinstance(name, bytes) else str(name)

"""Whether what ``torch.compile`` writes for CPUs can be compiled here."""

from __future__ import annotations

import os
import shutil
import subprocess

from benchmarks.systems import Unavailable


def check_compiler() -> None:
    """Raise :class:`Unavailable` without a C++ compiler: what ``CXX`` names, by default g++."""
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    if compiler is None or subprocess.run([compiler, "--version"], capture_output=True).returncode:
        raise Unavailable("no C++ compiler")

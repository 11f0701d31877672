"""Ordinary tests with kernels for ARM, emulated: ``pytest -p tests.arm.plugin tests/test_…``."""

from __future__ import annotations

from typing import Any

import pytest

from tests.arm.emulator import calls, install

install()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Count what a worker process has called."""
    calls[0] += getattr(node, "workeroutput", {}).get("emulated", 0)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: Any) -> None:
    """Tell the process that started this one; a session without emulated calls has failed."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["emulated"] = calls[0]
    elif not calls[0] and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how much ran in the emulator."""
    terminalreporter.write_line(f"{calls[0]} calls into emulated code")

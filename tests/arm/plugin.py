"""Ordinary tests with kernels for ARM, emulated: ``pytest -p tests.arm.plugin tests/test_…``."""

from __future__ import annotations

from typing import Any

import pytest

from tests.arm.emulator import calls, install

install()


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"{calls[0]} calls into emulated code")

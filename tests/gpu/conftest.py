"""What only a GPU can show; run by ``make gpu``, skipped where there is none."""

from __future__ import annotations

import pytest

from graphflow.codegen.cuda.toolchain import state


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    there = state()
    if there.usable and not there.simulated:
        return
    for item in items:
        item.add_marker(pytest.mark.skip(reason=f"no GPU: {there}"))

"""Options and fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from graphflow.backends import cpu

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the files in tests/golden"
    )


def pytest_configure() -> None:
    """Eager code is what compiled code is compared with: NumPy's, whatever the cache has."""
    cpu.eager_kernels = False


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: ``text`` equals the file ``tests/golden/<name>``.

    With ``--update-golden`` the file is written instead; read the difference
    before you commit it.
    """
    update = request.config.getoption("--update-golden")

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if update:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing; run pytest --update-golden and look at it"
        assert text == path.read_text(), f"differs from {path}; see --update-golden"

    return check

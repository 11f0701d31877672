"""Reports to open, and the browser that opens them."""

import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

from graphflow.cli.main import main
from tests.browser.devtools import Page, chromium

ROOT = pathlib.Path(__file__).parent.parent.parent
PICTURES = ROOT / "out" / "browser"


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The page of the MLP's training step."""
    path = tmp_path_factory.mktemp("report") / "mlp.html"
    assert main(["inspect", str(ROOT / "models" / "mlp.py"), "--html", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Page]:
    """One browser for all tests; they are skipped where there is none."""
    if chromium() is None:
        reason = "no Chromium: the report is NOT TESTED in a browser (apt-get install chromium)"
        print(f"\n{'!' * 20} {reason}", file=sys.stderr)
        if os.environ.get("GRAPHFLOW_NEED_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    page = Page()
    yield page
    page.close()


@pytest.fixture
def page(browser: Page, report: pathlib.Path) -> Iterator[Page]:
    """The report, freshly opened; a test fails if the console has complained."""
    browser.problems.clear()
    browser.requests.clear()
    browser.prefer("light")
    browser.open(report)
    yield browser
    assert browser.problems == []
    local = ("file:", "data:", "about:")
    assert [url for url in browser.requests if not url.startswith(local)] == []

"""TensorBoard itself opens what ``SummaryWriter`` writes."""

import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from tests.browser.conftest import PICTURES
from tests.browser.devtools import Page

pytest.importorskip("tensorboard")
from graphflow.utils.tensorboard import SummaryWriter


def write(folder: pathlib.Path) -> None:
    """A small run with something of everything."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with SummaryWriter(folder / "run") as writer:
        for step in range(20):
            writer.add_scalar("train/loss", 1 / (step + 1), step)
            writer.add_histogram("weights", model[0].weight * (step + 1), step)
        writer.add_images("digits", gf.rand(4, 1, 8, 8))
        writer.add_text("note", "a **bold** note")
        writer.add_graph(model, gf.randn(3, 4))
        writer.add_hparams({"lr": 0.1, "optimizer": "sgd"}, {"accuracy": 0.9}, run_name="hparams")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A TensorBoard over the run."""
    folder = tmp_path_factory.mktemp("runs")
    write(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(1000):
            try:
                if "run" in ask(url + "data/runs"):
                    break
            except OSError:
                pass
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=100)


def ask(url: str) -> Any:
    """The answer of one of the server's own addresses."""
    with urllib.request.urlopen(url, timeout=100) as answer:
        return json.loads(answer.read())


def shown(page: Page) -> str:
    """All text on the page, within components too; one space between words."""
    script = """(() => {
      const walk = node => (node.shadowRoot ? walk(node.shadowRoot) : '') +
        [...node.childNodes].map(c => c.nodeType === 3 ? c.textContent :
          ['STYLE', 'SCRIPT', 'NOSCRIPT'].includes(c.nodeName) ? '' : walk(c)).join(' ');
      return document.body ? walk(document.body) : ''; })()"""
    return " ".join(str(page.js(script)).split())


VIEWS = {
    "scalars": ("train",), "histograms": ("weights",), "images": ("digits",),
    "text": ("note/text_summary",), "graphs": ("Run (1)",), "hparams": ("optimizer", "accuracy"),
}  # fmt: skip


def test_every_view_shows_the_run(browser: Page, address: str) -> None:
    plugins = ask(address + "data/plugins_listing")
    for name in ("scalars", "histograms", "images", "text", "graphs", "hparams"):
        assert plugins[name]["enabled"], name
    series = ask(address + "data/plugin/scalars/scalars?run=run&tag=train/loss")
    np.testing.assert_allclose([value for _, _, value in series], 1 / np.arange(1, 21), rtol=1e-6)
    for view, words in VIEWS.items():
        browser.send("Page.navigate", url="about:blank")
        browser.send("Page.navigate", url=f"{address}#{view}")
        end = time.monotonic() + 200
        while not all(word in shown(browser) for word in words):
            assert time.monotonic() < end, f"{view} does not show {words}: {shown(browser)[:800]}"
            time.sleep(0.3)
        browser.screenshot(PICTURES / f"tensorboard_{view}.png")

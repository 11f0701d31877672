"""Loops, branches and fused groups in a report: graphs within the graph, opened and closed."""

import pathlib
from typing import Any

import pytest

import graphflow as gf
from tests.browser.conftest import PICTURES
from tests.browser.devtools import Page
from tests.browser.test_browser_report import number, text


def walked(x: Any, count: Any) -> Any:
    """A loop with a branch in it, and work before and after that is fused."""

    def body(carry: Any) -> Any:
        i, h = carry
        return i + 1, gf.cond(h.sum() > 0, lambda h: gf.tanh(h * 3.0), lambda h: gf.exp(h), h)

    return gf.while_loop(lambda carry: carry[0] < count, body, (gf.tensor(0), x * 2.0 + 1.0))[1]


@pytest.fixture(scope="module")
def looped(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The page of a program with a loop."""
    specs = gf.TensorSpec((3, 4), name="x"), gf.TensorSpec((), gf.int64, name="count")
    program = gf.compile(gf.trace(walked, *specs))
    inputs = gf.ones(3, 4), gf.tensor(3)
    path: pathlib.Path = program.report(tmp_path_factory.mktemp("loop") / "loop.html", inputs)
    return path


@pytest.fixture
def loop(page: Page, looped: pathlib.Path) -> Page:
    """That page, at the traced graph with everything closed."""
    page.open(looped, "#graph/traced")
    page.press("g", "c")
    return page


def test_a_loop_opens_into_its_regions_and_closes(loop: Page) -> None:
    assert number(loop, ".frame.region") == 0 and number(loop, ".node.while_loop") == 1
    loop.click(".node.while_loop .toggle")
    assert number(loop, ".frame.region") == 3  # the loop, its condition, its body
    heads = loop.js("[...document.querySelectorAll('.frame .head')].map(h => h.textContent)")
    assert sorted(heads) == ["body", "condition", "while_loop"]
    assert number(loop, ".node.lt") == 1 and number(loop, ".node.cond") == 1
    loop.click(".node.cond .toggle")
    assert number(loop, ".node.tanh") == 1 and number(loop, ".frame.region") == 6
    loop.screenshot(PICTURES / "loop.png")
    loop.press("0")
    loop.click(".frame.region.while_loop .toggle")
    assert number(loop, ".frame.region") == 0 and number(loop, ".node.while_loop") == 1


def test_nothing_overlaps_in_open_regions_and_every_edge_ends_at_something(loop: Page) -> None:
    loop.press("e")
    bad = loop.js(
        """(() => { const { things, boxes, edges } = page.view.scene; let bad = 0;
        const apart = (a, b) => a.x >= b.x + b.w - .1 || b.x >= a.x + a.w - .1
          || a.y >= b.y + b.h - .1 || b.y >= a.y + a.h - .1;
        for (const a of things) for (const b of things) if (a !== b && !apart(a, b)) bad++;
        for (const a of things) for (let box = a.parent; box.parent; box = box.parent)
          if (a.x < box.x || a.y < box.y || a.x + a.w > box.x + box.w || a.y + a.h > box.y + box.h)
            bad++;
        for (const edge of edges) if (![edge.from, edge.to].every((end) =>
          things.includes(end) || boxes.includes(end))) bad++;
        return bad; })()"""
    )
    assert bad == 0


def test_search_opens_the_regions_around_what_it_finds(loop: Page) -> None:
    loop.press("/")
    loop.type("tanh")
    assert "1 match" in text(loop, "#results")
    assert number(loop, ".node.while_loop.hit") == 1  # closed around it
    loop.press("Enter")
    assert number(loop, ".node.tanh.selected") == 1
    assert "tanh" in text(loop, "#details h2") and "then" in text(loop, "#details h3")
    address = loop.js("location.hash")
    loop.open(pathlib.Path(loop.js("decodeURI(location.pathname)")), address)
    assert number(loop, ".node.tanh.selected") == 1


def test_the_keyboard_opens_and_closes_regions(loop: Page) -> None:
    loop.click(".node.while_loop")
    loop.press("g", "Enter")
    assert number(loop, ".frame.region") == 3
    assert number(loop, ".frame.while_loop.selected") == 1
    loop.press("Enter")
    assert number(loop, ".frame.region") == 0 and number(loop, ".node.while_loop.selected") == 1
    loop.press("Enter")
    loop.click(".node.lt")
    assert "condition" in text(loop, "#details h3")
    loop.press("g", "Enter")  # closes the loop around it
    assert number(loop, ".frame.region") == 0


def test_an_operand_of_a_region_leads_outside(loop: Page) -> None:
    loop.press("e")
    loop.js(
        "page.select([...everyItem(page.view.stage.tree)].find(item => item.node.kind === 'leaf'"
        " && item.node.home.name === 'body' && item.node.type.startsWith('f32[')).node.key)"
    )
    assert "Stands for" in text(loop, "#details")
    loop.js(
        "[...document.querySelectorAll('#details section')].find(part =>"
        " part.textContent.startsWith('Stands for')).querySelector('button').click()"
    )
    assert "add" in text(loop, "#details h2")


def test_a_fused_group_shows_its_operations(loop: Page) -> None:
    loop.js("page.goTo(program.stages.length - 1, null)")
    loop.press("c")
    assert number(loop, ".node.fused[data-region]") == 1
    loop.click(".node.fused .toggle")
    assert number(loop, ".frame.region.fused") == 1
    assert number(loop, ".node.mul") == 1 and number(loop, ".node.add") == 1
    loop.click(".node.mul")
    assert "mul" in text(loop, "#details h2")
    assert "Computed by" in text(loop, "#details")  # by the step of its group

"""What a person does with a report: look, search, walk, open, compare, read."""

import pathlib
import random

import graphflow as gf
from graphflow.report import render
from tests.browser.conftest import PICTURES
from tests.browser.devtools import Page

VIEWS = ("overview", "graph", "compare", "kernels", "memory")


def text(page: Page, selector: str) -> str:
    """The text of the first element that ``selector`` finds."""
    return str(page.js(f"document.querySelector({selector!r})?.textContent ?? ''"))


def number(page: Page, selector: str) -> int:
    """How many elements ``selector`` finds."""
    return int(page.js(f"document.querySelectorAll({selector!r}).length"))


def background(page: Page) -> int:
    """How bright the page is, 0 to 255."""
    color = page.js("getComputedStyle(document.body).backgroundColor")
    return int(color.split("(")[1].split(",")[0])


def test_every_view_in_dark_and_light(page: Page) -> None:
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        assert (background(page) > 128) == (scheme == "light")
        for position, view in enumerate(VIEWS, 1):
            page.press(str(position))
            assert page.js(f"!document.getElementById('{view}').hidden")
            page.screenshot(PICTURES / f"{view}_{scheme}.png")
    page.press("t")  # from the system's dark to one's own light
    assert background(page) > 128
    page.click("#theme")
    assert background(page) < 128


def test_the_overview_tells_stages_times_and_the_comparison(page: Page) -> None:
    assert "traced" in text(page, ".pipeline") and "schedule" in text(page, ".pipeline")
    assert number(page, ".pipeline li") == page.js("program.stages.length + 2")
    assert "eager" in text(page, ".comparison") and "×" in text(page, ".comparison")
    page.click(".pipeline li:nth-child(2) button")
    assert page.js("page.tab") == "graph" and page.js("page.stage") == 1


def test_where_the_time_goes_adds_up_by_kernel_module_and_line(page: Page) -> None:
    for by in ("kernels", "modules", "lines", "calls"):
        page.js(
            "[...document.querySelectorAll('#overview .chip')]"
            f".find(chip => chip.textContent === {by!r}).click()"
        )
        shares = page.js(
            "[...document.querySelectorAll('.ranking i')].map(bar => parseFloat(bar.style.width))"
        )
        assert shares == sorted(shares, reverse=True) and 90 < sum(shares) < 100.5
    assert number(page, '#overview .chip[aria-pressed="true"]') == 1
    page.click(".ranking button")
    assert page.js("page.tab") == "kernels" and text(page, "#details h2").startswith("#")


def test_the_map_shows_what_is_in_sight_and_goes_elsewhere(page: Page) -> None:
    page.press("2", "e", "g", "+", "+", "+", "+")
    assert page.js("!page.view.map.picture.hasAttribute('hidden')")
    before = page.js("[page.view.x, page.view.y]")
    page.click(".map")
    middle = page.js(
        "[(page.view.picture.clientWidth / 2 - page.view.x) / page.view.scale / page.view.scene.w,"
        " (page.view.picture.clientHeight / 2 - page.view.y) / page.view.scale"
        " / page.view.scene.h]"
    )
    assert all(abs(part - 0.5) < 0.05 for part in middle)
    assert page.js("[page.view.x, page.view.y]") != before
    page.js("page.view.zoom(0.01 / page.view.scale); page.view.x = page.view.y = 5")
    page.js("page.view.place()")
    assert page.js("page.view.map.picture.hasAttribute('hidden')")


def test_modules_close_and_open(page: Page) -> None:
    page.press("2")
    assert number(page, '[data-box="/model/fc1"].frame') == 1
    before = number(page, ".node")
    page.click('[data-box="/model/fc1"] .toggle')
    assert number(page, '[data-box="/model/fc1"].closed') == 1
    assert number(page, ".node") < before
    page.click('[data-box="/model/fc1"].closed')
    assert number(page, ".node") == before
    page.click('button[aria-label^="Close all"]')
    assert number(page, ".frame") == 0
    page.click('button[aria-label^="Open all"]')
    assert number(page, ".closed") == 0


def test_nodes_and_boxes_never_overlap(page: Page) -> None:
    page.press("2")
    overlaps = page.js(
        """(() => { let bad = 0;
        for (const stage of program.stages) {
          const tree = clusterTree(stage), open = new Set(['']);
          const add = (box) => { open.add(box.id); box.clusters.forEach(add); };
          for (const whole of [false, true]) {
            if (whole) add(tree.root);
            const things = buildScene(tree, open).things;
            for (const a of things) for (const b of things) if (a !== b
              && a.x < b.x + b.w - .1 && b.x < a.x + a.w - .1
              && a.y < b.y + b.h - .1 && b.y < a.y + a.h - .1) bad++;
          } }
        return bad; })()"""
    )
    assert overlaps == 0


def test_search_finds_marks_and_goes_there(page: Page) -> None:
    page.press("2", "/")
    page.type("matmul fc2")
    assert number(page, "#results button") == 3  # the product and its two gradients
    assert number(page, ".node.hit") == 3
    page.press("Enter")
    assert "matmul" in text(page, "#details h2")
    assert number(page, ".node.selected") == 1
    assert page.js("document.getElementById('results').hidden")
    page.press("/")
    page.js("document.getElementById('search').select()")
    page.type("nothing is called this")
    assert "0 matches" in text(page, "#results")
    page.press("Escape")
    assert number(page, ".hit") == 0


def test_from_a_node_to_its_line_its_kernel_the_source_and_the_time(page: Page) -> None:
    page.press("2", "/")
    page.type("relu")
    page.press("Enter")
    assert "mlp.py" in text(page, "#details .place")
    assert "relu" in text(page, "#details .line.here")
    assert "µs" in text(page, "#details .time") or "ms" in text(page, "#details .time")
    page.click("#details summary")
    assert "def mm_" in text(page, "#details .kernel .source")
    page.screenshot(PICTURES / "node_to_kernel.png")
    page.click("#details .card .link")
    assert page.js("page.tab") == "kernels"
    page.click("#details .action")
    assert page.js("page.tab") == "graph" and number(page, ".node.selected") == 1


def test_stages_and_comparisons_step_through(page: Page) -> None:
    page.press("2", "]")
    assert page.js("page.stage") == 1
    page.press("[", "[")
    assert page.js("page.stage") == 0
    page.press("3")
    assert number(page, "#compare .graph") == 2
    assert number(page, "#compare .removed") > 0
    heading = text(page, "#compare .toolbar")
    page.press("]")
    assert text(page, "#compare .toolbar") != heading
    assert "fused" in text(page, "#compare .changes")
    page.js(
        "[...document.querySelectorAll('#compare .changes .chip')]"
        ".find(chip => chip.textContent.includes(' fused')).click()"
    )
    assert number(page, "#compare .node.selected") >= 1
    assert number(page, "#compare .pane:first-child .hit") > 1  # what the group was made of
    page.screenshot(PICTURES / "group_and_members.png")


def test_zoom_by_wheel_buttons_and_keys(page: Page) -> None:
    page.press("2")
    start = page.js("page.view.scale")
    page.wheel(500, 500, -300)
    assert page.js("page.view.scale") > start
    page.click('button[aria-label^="Fit"]')
    assert abs(page.js("page.view.scale") - start) < 1e-9
    page.press("g", "+", "+")
    assert page.js("page.view.scale") > start * 1.5
    page.press("-", "-", "0")
    assert abs(page.js("page.view.scale") - start) < 1e-9


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.press("g", "ArrowDown")
    first = text(page, "#details h2")
    page.press("ArrowDown", "ArrowDown")
    assert text(page, "#details h2") not in ("", first)
    assert page.js("document.activeElement === page.view.picture")
    boxes = number(page, ".frame")
    page.press("Enter")
    assert number(page, ".frame") == boxes - 1
    page.press("Enter")
    assert number(page, ".frame") == boxes
    page.press("Escape")
    assert page.js("document.getElementById('details').hidden")
    page.press("?")
    assert page.js("document.getElementById('help').open")
    page.press("Escape")
    assert not page.js("document.getElementById('help').open")
    page.js("document.getElementById('tab-graph').focus()")
    page.press("ArrowRight")
    assert page.js("page.tab") == "compare"
    page.press("4")
    page.js("document.querySelector('.mark').focus()")
    page.press("Enter")
    assert "#0" in text(page, "#details h2")


def test_kernels_sort_and_charts_lead_to_steps(page: Page) -> None:
    page.press("4")
    assert number(page, ".chart") == 2 and number(page, "circle") > 0
    times = page.js("[...document.querySelectorAll('.steps tbody tr')].map(r => +r.dataset.step)")
    page.click(".steps th:first-child button")
    again = page.js("[...document.querySelectorAll('.steps tbody tr')].map(r => +r.dataset.step)")
    assert again == sorted(times) and times != again
    page.press("5")
    page.click("#memory .mark")
    assert text(page, "#details h2").startswith("#")


def step(number: int, kind: str, inside: list[object], **facts: object) -> dict[str, object]:
    """A step of a made-up schedule, with the steps inside it."""
    return {
        "id": number, "kind": kind, "name": kind, "kernels": [], "ir": "", "locations": [],
        "bytes": 8, "flops": 4, "threads": 1, "reads": [], "writes": [], "node": None,
        "nodes": [], "seconds": None, "runs": 0, "steps": inside, **facts,
    }  # fmt: skip


def random_program(size: int) -> dict[str, object]:
    """A made-up program of ``size`` nodes in nested modules, names full of markup."""
    chance = random.Random(7)
    nodes: list[dict[str, object]] = []
    for i in range(size):
        near = {max(0, i - 1 - int(chance.expovariate(0.2))) for _ in range(2)}
        inputs = sorted(near) if i else []
        module = f"net.block{i * 12 // size}.part{i * 60 // size % 5}"
        nodes.append(
            {
                "id": i, "key": i + 1, "label": f"%{i}", "op": "input" if i == 0 else "<b>add</b>",
                "kind": "leaf" if i == 0 else "elementwise", "type": "f32[8]", "inputs": inputs,
                "attrs": {}, "text": "<img src=x onerror=alert(1)>", "file": "a<b>.py", "line": 3,
                "module": module, "regions": [],
            }
        )  # fmt: skip
    graph = {"name": "g", "inputs": [0], "state": [], "outputs": [size - 1], "updates": [],
             "nodes": nodes}  # fmt: skip
    kernel = {"name": "ew", "source": "</pre><script>", "path": None, "epilogue": False}
    loop = step(
        0, "loop", [step(1, "kernel", [], name="ew", kernels=["ew"], seconds=1e-6, runs=30)]
    )
    return {
        "name": "<script>alert(1)</script>", "graphflow": "0", "threads": 1, "sizes": {},
        "seconds": {"trace": 0, "passes": 0, "schedule": 0, "kernels": 0}, "steps": [loop],
        "stages": [{"name": "traced", "seconds": 0, "note": "", "nodes": size, "graph": graph}],
        "kernels": [kernel], "cache": {"hits": 0, "misses": 0, "path": None},
        "memory": {"naive_bytes": 0, "arena_bytes": 0, "buffers": []},
        "measured": {"runs": 3, "seconds": 1e-5},
        "limits": {"flops": 1e9, "memory": 1e9, "caches": 2e9},
    }  # fmt: skip


def test_2000_nodes_in_under_2_seconds_and_markup_stays_text(
    page: Page, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "large.html"
    path.write_text(render(random_program(2000)))
    assert page.open(path, "#graph/traced") < 5
    page.js("page.view.picture.focus()")
    seconds = page.js(
        """(() => { const start = performance.now(); page.view.openAll();
        page.view.picture.getBoundingClientRect(); return (performance.now() - start) / 1e3; })()"""
    )
    assert number(page, ".node") == 2000 and seconds < 2
    page.screenshot(PICTURES / "large.png")
    page.press("0", "ArrowDown")
    assert number(page, "img") == 0 and text(page, "#name") == "<script>alert(1)</script>"
    for position in range(1, 6):
        page.press(str(position))
    page.press("4")
    assert round(page.js("program.total"), 9) == 1e-5  # ten turns of the loop a step
    page.click(".steps tbody tr")
    assert "</pre><script>" in text(page, "#details .kernel .source")


def test_a_program_that_was_never_timed(page: Page, tmp_path: pathlib.Path) -> None:
    program = gf.compile(gf.trace(lambda x: gf.tanh(x).sum(), gf.TensorSpec((4, 5))))
    page.open(program.report(tmp_path / "untimed.html"))
    assert "not timed" in text(page, "#overview")
    for position in range(1, 6):
        page.press(str(position))
    page.press("4")
    assert "A roofline needs measured times" in text(page, "#kernels")
    assert number(page, ".flame") > 0

"""Figures as SVG, drawn without a library: bars of ratios, curves over sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.systems import SYSTEMS
from graphflow.tables import duration, significant

COLOURS = {
    "static": "#0b6e4f", "model": "#3a9d78", "eager": "#7cc6a4", "torch": "#d1495b",
    "torch_compile": "#edae49", "jax": "#30638e", "pytensor": "#8d6a9f", "ort": "#7d7d7d",
}  # fmt: skip
_LEFT, _WIDTH, _BAR, _GAP = 130, 560, 11, 12
_STYLE = "font-family='sans-serif' font-size='11'"


def bars(figures: Mapping[str, Any]) -> str:
    """A group of bars a workload: times as multiples of the fastest system's, logarithmic."""
    parts: list[str] = []
    systems: dict[str, None] = {}
    y, most = 40.0, _most(figures["workloads"].values())
    for name, result in figures["workloads"].items():
        medians = {s: m["median"] for s, m in result["systems"].items() if "median" in m}
        if not medians:
            continue
        best = min(medians.values())
        parts.append(_text(_LEFT - 8, y + len(medians) * _BAR / 2 + 4, name, "end"))
        for system, median in medians.items():
            systems[system] = None
            length = 3 + (_WIDTH - 3) * math.log(median / best) / math.log(most)
            parts.append(
                f"<rect x='{_LEFT}' y='{y:.0f}' width='{length:.1f}' height='{_BAR - 1}' "
                f"fill='{COLOURS[system]}'/>"
            )
            label = f"{significant(median / best)} ({duration(median)})"
            parts.append(_text(_LEFT + length + 4, y + _BAR - 2, label, size=9))
            y += _BAR
        y += _GAP
    return _page(_LEFT + _WIDTH + 130, y, [*_legend(systems, 14), *parts])


def _most(results: Iterable[Mapping[str, Any]]) -> float:
    """The largest ratio of a system to the fastest."""
    ratios = [2.0]
    for result in results:
        medians = [m["median"] for m in result["systems"].values() if "median" in m]
        ratios += [max(medians) / min(medians)] if medians else []
    return max(ratios)


def curves(titles: Sequence[str], panels: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Panels side by side; in each, seconds by size for every system, both logarithmic."""
    parts: list[str] = []
    systems: dict[str, None] = {}
    for number, (title, lines) in enumerate(zip(titles, panels, strict=True)):
        systems |= dict.fromkeys(lines)
        parts += _panel(70 + 330 * number, 40, title, lines)
    return _page(330 * len(panels) + 20, 330, [*_legend(systems, 14), *parts])


def _panel(x: int, y: int, title: str, lines: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One panel of 230 × 230 with its axes."""
    points = {s: {float(k): v for k, v in line.items()} for s, line in lines.items() if line}
    sizes = sorted({size for line in points.values() for size in line})
    times = [t for line in points.values() for t in line.values()]
    low, high = min(times, default=1.0), max(times, default=2.0)

    def across(size: float) -> float:
        return x + 230 * math.log(size / sizes[0]) / max(math.log(sizes[-1] / sizes[0]), 1e-9)

    def up(seconds: float) -> float:
        return y + 250 - 230 * math.log(seconds / low) / max(math.log(high / low), 1e-9)

    parts = [f"<path d='M{x - 5},{y + 10}V{y + 255}H{x + 240}' fill='none' stroke='#999'/>"]
    parts.append(_text(x + 115, y + 4, title, "middle"))
    parts += [_text(across(size), y + 270, f"{size:g}", "middle", 9) for size in sizes]
    parts += [_text(x - 8, up(t) + 3, duration(t), "end", 9) for t in (low, high)]
    for system, line in points.items():
        path = " ".join(f"{across(s):.1f},{up(t):.1f}" for s, t in sorted(line.items()))
        parts.append(
            f"<polyline points='{path}' fill='none' stroke-width='2' stroke='{COLOURS[system]}'/>"
        )
    return parts


def _legend(systems: Iterable[str], y: int) -> list[str]:
    parts = []
    for number, system in enumerate(systems):
        x = 20 + 115 * number
        parts.append(f"<rect x='{x}' y='{y - 9}' width='10' height='10' fill='{COLOURS[system]}'/>")
        parts.append(_text(x + 14, y, SYSTEMS[system][1]))
    return parts


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 11) -> str:
    return (
        f"<text x='{x:.0f}' y='{y:.0f}' text-anchor='{anchor}' font-size='{size}'>"
        f"{escape(words)}</text>"
    )


def _page(width: float, height: float, parts: Iterable[str]) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:.0f}' height='{height:.0f}' "
    return "\n".join([f"{head}{_STYLE}>", "<rect width='100%' height='100%' fill='white'/>",
                      *parts, "</svg>", ""])  # fmt: skip

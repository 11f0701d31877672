"""The figures of a run as a table."""

from __future__ import annotations

from typing import Any

from benchmarks.systems import SYSTEMS
from graphflow.tables import duration, significant, table

_PEERS = ("torch", "jax")


def report(figures: dict[str, Any]) -> str:
    """Times, ratios and floors of every workload; then the start-up times, if measured."""
    machine, threads = figures["machine"], figures["threads"]
    head = (
        f"{threads} threads; copy {machine['bandwidth'] / 1e9:.1f} GB/s, "
        f"matrix product {machine['flops'] / 1e9:.0f} GFLOP/s (both measured)"
    )
    if figures["pause_ms"]:
        head += f"; {figures['pause_ms']:g} ms of busy Python before each call"
    systems = list(next(iter(figures["workloads"].values()))["systems"])
    headers = ["median of a call", *(SYSTEMS[s][1] for s in systems), "floor"]
    headers += ["÷ PyTorch", "÷ JAX", "÷ faster", "eager ÷ PyTorch", "spread", "differ"]
    headers += ["after changes"]
    rows = [_row(name, result, systems) for name, result in figures["workloads"].items()]
    parts = [head, "", table(headers, rows)]
    if "startup" in figures:
        parts += ["", _startup(figures["startup"])]
    return "\n".join(parts)


def _row(name: str, result: dict[str, Any], systems: list[str]) -> list[str]:
    medians = {s: result["systems"][s].get("median") for s in systems}
    peers = [medians[p] for p in _PEERS if medians.get(p)]
    static = medians.get("static")
    times = [duration(medians[s]) if medians[s] else "failed" for s in systems]
    spread = max((result["systems"][s].get("spread", 0.0) for s in systems), default=0.0)
    return [
        name,
        *times,
        duration(result["floor"]) if result["floor"] > 1e-6 else "–",
        _ratio(static, medians.get("torch")),
        _ratio(static, medians.get("jax")),
        _ratio(static, min(peers, default=None)),
        _ratio(medians.get("eager"), medians.get("torch")),
        f"±{50 * spread:.0f}%",
        f"{result['largest_difference']:.0e}",
        f"{result.get('largest_difference_after_changes', 0.0):.0e}",
    ]


def _ratio(value: float | None, reference: float | None) -> str:
    return significant(value / reference) if value and reference else ""


def _startup(figures: dict[str, Any]) -> str:
    rows = [
        [SYSTEMS[system][1], duration(times["cold_s"]), duration(times["warm_s"])]
        for system, times in figures.items()
    ]
    headers = ["fresh process to first mlp step", "caches empty", "caches filled"]
    return table(headers, rows)

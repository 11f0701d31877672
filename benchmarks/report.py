"""The figures of a run as a table."""

from __future__ import annotations

from typing import Any

from benchmarks.startup import PARTS
from benchmarks.systems import OURS, SYSTEMS
from graphflow.tables import duration, quantity, significant, table


def report(figures: dict[str, Any]) -> str:
    """Times, ratios and floors of every workload; then the start-up times, if measured."""
    machine, threads = figures["machine"], figures["threads"]
    limited = f" of {figures['isa']}" if figures.get("isa") else ""
    head = (
        f"{threads} threads; copy {machine['bandwidth'] / 1e9:.1f} GB/s, "
        f"matrix product {machine['flops'] / 1e9:.0f} GFLOP/s{limited} (both measured)"
    )
    if figures["pause_ms"]:
        head += f"; {figures['pause_ms']:g} ms of busy Python before each call"
    systems = list(next(iter(figures["workloads"].values()))["systems"])
    headers = ["median of a call", *(SYSTEMS[s][1] for s in systems), "floor", "share"]
    headers += ["÷ PyTorch", "÷ JAX", "÷ fastest", "model ÷ PyTorch", "eager ÷ PyTorch"]
    headers += ["spread", "differ", "after changes"]
    rows = [_row(name, result, systems) for name, result in figures["workloads"].items()]
    parts = [head, "", table(headers, rows), *notes(figures["workloads"])]
    if "startup" in figures:
        parts += ["", _startup(figures["startup"])]
    return "\n".join(parts)


def absent(error: str) -> bool:
    """Whether an error says that a system is not there, or not meant to do a workload."""
    return "NotImplementedError" in error or "Unavailable" in error


def notes(results: dict[str, Any]) -> list[str]:
    """Why columns are empty: what systems lack, and what failed."""
    found: dict[str, None] = {}
    for name, result in results.items():
        for system, measured in result["systems"].items():
            error = measured.get("error", "")
            title = SYSTEMS[system][1]
            if "Unavailable" in error:
                found[f"{title}: unavailable: {error.split('Unavailable: ')[-1]}"] = None
            elif error and not absent(error):
                found[f"{title} failed on {name}: {error}"] = None
    return list(found)


def _row(name: str, result: dict[str, Any], systems: list[str]) -> list[str]:
    medians = {s: result["systems"][s].get("median") for s in systems}
    peers = [median for p, median in medians.items() if median and p not in OURS]
    static, floor = medians.get("static"), result["floor"]
    times = [_time(result["systems"][s]) for s in systems]
    spread = max((result["systems"][s].get("spread", 0.0) for s in systems), default=0.0)
    return [
        name,
        *times,
        duration(floor) if floor > 1e-6 else "–",
        f"{100 * floor / static:.0f}%" if floor > 1e-6 and static else "–",
        _ratio(static, medians.get("torch")),
        _ratio(static, medians.get("jax")),
        _ratio(static, min(peers, default=None)),
        *(_ratio(medians.get(form), medians.get("torch")) for form in ("model", "eager")),
        f"±{50 * spread:.0f}%",
        f"{result['largest_difference']:.0e}",
        f"{result.get('largest_difference_after_changes', 0.0):.0e}",
    ]


def _time(measured: dict[str, Any]) -> str:
    if "Unavailable" in measured.get("error", ""):
        return "unavailable"
    if absent(measured.get("error", "")):
        return "–"
    return duration(measured["median"]) if "median" in measured else "failed"


def _ratio(value: float | None, reference: float | None) -> str:
    return significant(value / reference) if value and reference else ""


def _startup(figures: dict[str, Any]) -> str:
    rows = []
    for name, systems in figures.items():
        jax = systems.get("jax", {})
        for system, times in systems.items():
            rows.append(
                [
                    name,
                    SYSTEMS[system][1],
                    duration(times["cold_call_s"]),
                    _ratio(times["cold_call_s"], jax.get("cold_call_s")),
                    duration(times["cold_total_s"]),
                    duration(akin) if (akin := times.get("akin_total_s")) else "",
                    _ratio(akin, jax.get("cold_total_s")),
                    *(duration(times[f"warm_{part}_s"]) for part in ("total", *PARTS[:4])),
                    quantity(times["warm_peak_bytes"]),
                ]
            )
    headers = ["fresh process", "", "first call", "÷ JAX", "from its start"]
    headers += ["kernels of relatives cached", "÷ JAX", "caches filled"]
    parts = ["imports", "model, tensors", "first call", "a step"]
    return table([*headers, *(f"{part}, filled" for part in parts), "peak memory"], rows)

"""Devices.  A tensor lives on one; so far there is the CPU."""

from __future__ import annotations

from dataclasses import dataclass

from graphflow.errors import GraphFlowError


@dataclass(frozen=True)
class Device:
    """A place for tensors: ``gf.device("cpu")``."""

    type: str
    index: int | None = None

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device(type='{self.type}')"


CPU = Device("cpu")


def device(spec: str | Device) -> Device:
    """The device called ``spec``; an error that says what exists for anything else."""
    if isinstance(spec, Device):
        return spec
    if spec in ("cpu", "cpu:0"):
        return CPU
    raise GraphFlowError(f"device {spec!r} is not available; this version runs on 'cpu'")

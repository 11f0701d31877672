"""Mixed precision on the CPU: the names of ``gf.amp`` without a device type."""

from __future__ import annotations

from graphflow.amp.autocast_mode import device_form
from graphflow.amp.grad_scaler import GradScaler

autocast = device_form("cpu")

__all__ = ["GradScaler", "autocast"]

"""Mixed precision on CUDA devices: the names of ``gf.amp`` without a device type."""

from __future__ import annotations

from functools import partial

from graphflow.amp import autocast_mode
from graphflow.amp.autocast_mode import device_form
from graphflow.amp.grad_scaler import GradScaler

autocast = device_form("cuda")
custom_fwd = partial(autocast_mode.custom_fwd, device_type="cuda")
custom_bwd = partial(autocast_mode.custom_bwd, device_type="cuda")

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]

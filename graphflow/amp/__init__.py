"""Mixed precision: ``autocast``, ``GradScaler``, and marks for functions of one's own."""

from graphflow.amp.autocast_mode import (
    autocast,
    custom_bwd,
    custom_fwd,
    is_autocast_available,
)
from graphflow.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]

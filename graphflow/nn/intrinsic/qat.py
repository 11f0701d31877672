"""Norms while a model is trained with rounding: ``model.apply(freeze_bn_stats)``."""

from graphflow.nn.module import Module
from graphflow.quantization.fuse import NORMS

__all__ = ["freeze_bn_stats", "update_bn_stats"]


def freeze_bn_stats(module: Module) -> None:
    """Normalise by the running statistics from now on, and let them be, until ``train()``."""
    if isinstance(module, NORMS):
        module.eval()


def update_bn_stats(module: Module) -> None:
    """Normalise by the batch, and take it into account."""
    if isinstance(module, NORMS):
        module.train()

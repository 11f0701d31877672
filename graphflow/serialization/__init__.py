"""Saving and loading: safetensors and PyTorch's checkpoints; nothing in a file is ever run."""

from graphflow.serialization.files import load, save

__all__ = ["load", "save"]

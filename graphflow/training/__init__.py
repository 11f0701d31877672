"""Training runs: a light trainer, and its pieces, each of which works without it."""

from graphflow.training.batches import ResumableLoader
from graphflow.training.checkpoint_files import DamagedCheckpoint
from graphflow.training.checkpoints import Checkpoint, CheckpointManager

__all__ = [
    "Checkpoint",
    "CheckpointManager",
    "DamagedCheckpoint",
    "ResumableLoader",
]

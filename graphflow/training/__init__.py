"""Training runs: a light trainer, and its pieces, each of which works without it."""

from graphflow.training.batches import ResumableLoader
from graphflow.training.callbacks import Callback, EarlyStopping
from graphflow.training.checkpoint_files import DamagedCheckpoint
from graphflow.training.checkpoints import Checkpoint, CheckpointManager
from graphflow.training.trainer import Trainer

__all__ = [
    "Callback",
    "Checkpoint",
    "CheckpointManager",
    "DamagedCheckpoint",
    "EarlyStopping",
    "ResumableLoader",
    "Trainer",
]

"""``python tests/trainer_to_kill.py FOLDER [LAST]``: a run of ``Trainer`` that a test kills.

It says the number of every update when it is done, and at the end a hash of all that training
made: parameters, the optimiser's state, the metrics of every epoch.  After update LAST it waits
to be killed, so that it does not end before a busy machine comes to that.
"""

from __future__ import annotations

import hashlib
import sys
import time

import graphflow as gf
from graphflow import nn, optim
from graphflow.nn import functional as F
from graphflow.training import Callback, Trainer
from graphflow.utils.data import DataLoader, TensorDataset

EPOCHS, BATCHES, BATCH = 3, 8, 8


class Says(Callback):
    """The number of every update; after update ``last`` it waits."""

    def __init__(self, last):
        self.last = last

    def on_step_end(self, trainer, metrics):
        """Write it at once: who reads it may kill this process."""
        print(trainer.record.step, flush=True)
        if trainer.record.step == self.last:
            time.sleep(1000)


def main(folder: str, last: int = 0) -> None:
    """Train to the end, from the newest checkpoint if there is one."""
    gf.manual_seed(5)
    model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 4))
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 3, 0.9)
    data = TensorDataset(gf.randn(BATCHES * BATCH, 12), gf.randint(0, 4, (BATCHES * BATCH,)))
    trainer = Trainer(
        model, optimizer, F.cross_entropy, scheduler=scheduler, schedule="step", clip_norm=1.0,
        accumulate=2, folder=folder, save_every=1, progress=False, callbacks=[Says(last)],
    )  # fmt: skip
    loader = DataLoader(data, BATCH, shuffle=True)
    history = trainer.fit(loader, DataLoader(data, BATCH), epochs=EPOCHS)
    found = hashlib.sha256(repr(history).encode())
    slots = [value for state in optimizer.state.values() for value in state.values()]
    for value in (*model.state_dict().values(), *slots):
        found.update(gf.as_tensor(value).numpy(force=True).tobytes())
    print(len(slots), scheduler.get_last_lr(), found.hexdigest(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

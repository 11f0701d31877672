"""Modules that train on several processes."""

from graphflow.nn.parallel.data_parallel import DataParallel
from graphflow.nn.parallel.distributed import DistributedDataParallel

__all__ = ["DataParallel", "DistributedDataParallel"]

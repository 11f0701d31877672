"""Modules that train on several processes."""

from graphflow.nn.parallel.data_parallel import DataParallel, data_parallel
from graphflow.nn.parallel.distributed import DistributedDataParallel

__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel"]

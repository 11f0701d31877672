"""Show the kernel cache, or clear it."""

from __future__ import annotations

import argparse

from graphflow.runtime import cache
from graphflow.runtime.folder import default_folder
from graphflow.tables import quantity


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``graphflow cache``."""
    parser.add_argument("--clear", action="store_true", help="delete every cached kernel")


def run(options: argparse.Namespace) -> None:
    """Print place and size, or what was removed."""
    folder, size = default_folder(), cache.size()
    if options.clear:
        print(f"removed {cache.clear()} files ({quantity(size)}) from {folder}")
    else:
        print(f"{folder}\n{quantity(size)}")

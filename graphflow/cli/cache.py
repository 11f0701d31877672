"""Show the kernel cache, or clear it."""

from __future__ import annotations

import argparse
import json

from graphflow.runtime import cache
from graphflow.runtime.folder import default_folder
from graphflow.tables import quantity


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``graphflow cache``."""
    parser.add_argument("--clear", action="store_true", help="delete every cached kernel")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> None:
    """Print place and size, or what was removed."""
    folder, size = default_folder(), cache.size()
    removed = cache.clear() if options.clear else None
    if options.json:
        print(json.dumps({"folder": str(folder), "bytes": size, "removed": removed}))
    elif removed is not None:
        print(f"removed {removed} files ({quantity(size)}) from {folder}")
    else:
        print(f"{folder}\n{quantity(size)}")

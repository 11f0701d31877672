"""``python -m graphflow`` is the ``graphflow`` command."""

import sys

from graphflow.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

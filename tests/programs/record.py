"""Record PyTorch's answers: ``python -m tests.programs.record`` where torch is installed."""

import json
from pathlib import Path

from tests.programs.behaviours import PROGRAMS


def main():
    import torch

    torch.set_num_threads(1)
    answers = {name: function(torch, lambda f: f) for name, function in PROGRAMS.items()}
    path = Path(__file__).with_name("expected.json")
    path.write_text(json.dumps({"torch": torch.__version__, "answers": answers}, indent=1) + "\n")


if __name__ == "__main__":
    main()

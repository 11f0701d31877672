"""The language models of ``models/`` beside the published ones, from a checkpoint of theirs."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import graphflow as gf
from tests.conformance import convert
from tests.conformance.outcome import Outcome

FOLDER = Path(__file__).parents[2] / "models"
NEAR = 1e-4
"""How far scores may be apart."""


def script(name: str) -> Any:
    """``models/<name>.py``, imported as if its folder were the current one."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


def gpt2() -> tuple[torch.nn.Module, Any, Any, tuple[torch.Tensor, ...]]:
    """GPT-2 in its smallest published shape."""
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt = script("gpt")
    tokens = torch.randint(0, 50257, (2, 24))
    return GPT2LMHeadModel(GPT2Config()), gpt.GPT(gpt.Config()), gpt.load_pretrained, (tokens,)


def bert() -> tuple[torch.nn.Module, Any, Any, tuple[torch.Tensor, ...]]:
    """A small BERT, with padding and two kinds of sentences."""
    from transformers import BertConfig, BertForMaskedLM

    sizes = {
        "vocab_size": 101, "max_position_embeddings": 40, "hidden_size": 48,
        "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96,
    }  # fmt: skip
    ours = script("bert")
    tokens, kinds = torch.randint(0, 101, (2, 32)), torch.randint(0, 2, (2, 32))
    present = torch.ones(2, 32, dtype=torch.int64)
    present[1, 20:] = 0
    model = ours.BERT(ours.Config(*sizes.values()))
    theirs = BertForMaskedLM(BertConfig(**sizes))
    return theirs, model, ours.load_pretrained, (tokens, present, kinds)


PUBLISHED: dict[str, Callable[[], Any]] = {"gpt2_checkpoint": gpt2, "bert_checkpoint": bert}


def check(name: str, compiled: bool, outcome: Outcome) -> str:
    """What is wrong with the scores of a model whose weights went through a file."""
    torch.manual_seed(0)
    theirs, ours, load, inputs = PUBLISHED[name]()
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for parameter in theirs.parameters():  # biases are 0 at first, and must show
            parameter += 0.02 * torch.randn_like(parameter)
        expected = theirs.eval()(*inputs).logits.numpy()
        theirs.save_pretrained(folder)
        load(ours, Path(folder) / "model.safetensors")
    ready = gf.compile(ours.eval()) if compiled else ours.eval()
    with gf.no_grad():
        found = ready(*map(convert.to_graphflow, inputs)).numpy()
    if compiled:
        outcome.host.extend(ready.explain().host_ops)
    apart = float(np.abs(found - expected).max())
    return "" if apart <= NEAR else f"scores {apart:.2g} apart"

"""GPT-2 (Radford et al. 2019): a language model of characters, or the published weights.

    python models/gpt.py --minutes 2

Trains on the sources of Python's standard library and is measured on files that it
has not seen.  Parameters have the names of Hugging Face's checkpoints:
``load_pretrained(model, "model.safetensors")`` reads theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import text
from generation import Cache, Generation
from harness import Session, Task, main, warm_cosine

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim

BATCH, STEPS = 32, 100  # windows a step; steps an epoch
RATE, CLIP = 2e-3, 1.0
PROMPT = "def "


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of the smallest published GPT-2."""

    vocabulary: int = 50257
    length: int = 1024
    width: int = 768
    layers: int = 12
    heads: int = 12
    dropout: float = 0.1
    epsilon: float = 1e-5


CHARACTERS = Config(len(text.CHARACTERS), length=128, width=128, layers=4, heads=4, dropout=0.0)


class Conv1D(nn.Module):
    """A linear layer whose weight is ``[inputs, outputs]``, as GPT-2 stores it."""

    def __init__(self, inputs: int, outputs: int, deviation: float = 0.02) -> None:
        super().__init__()
        self.weight = nn.Parameter(gf.empty(inputs, outputs).normal_(std=deviation))
        self.bias = nn.Parameter(gf.zeros(outputs))

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """``x @ weight + bias``."""
        return x @ self.weight + self.bias


def residual_deviation(config: Config) -> float:
    """Of the weights that write to the residual stream: less, the more layers write to it."""
    return 0.02 / math.sqrt(2 * config.layers)


class Attention(nn.Module):
    """Every position looks at itself and at those before it, with several heads."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.dropout = layer, config.heads, config.dropout
        self.c_attn = Conv1D(config.width, 3 * config.width)
        self.c_proj = Conv1D(config.width, config.width, residual_deviation(config))
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: gf.Tensor, cache: Cache | None) -> gf.Tensor:
        """``[batch, count, width]`` of the same; with a cache, after what is in it."""
        batch, count, width = x.shape
        query, key, value = (
            part.reshape(batch, count, self.heads, width // self.heads).transpose(1, 2)
            for part in self.c_attn(x).split(width, 2)
        )
        if cache is None:
            dropout = self.dropout if self.training else 0.0
            y = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        else:
            key, value = cache.extend(self.layer, key, value)
            y = F.scaled_dot_product_attention(query, key, value, cache.mask(count))
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(batch, count, width)))


class MLP(nn.Module):
    """Two layers, four times as wide between them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.c_fc = Conv1D(config.width, 4 * config.width)
        self.c_proj = Conv1D(4 * config.width, config.width, residual_deviation(config))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """``[..., width]`` of the same."""
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))


class Block(nn.Module):
    """Attention and an MLP, each normalised before and added to what came in."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=config.epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.width, eps=config.epsilon)
        self.mlp = MLP(config)

    def forward(self, x: gf.Tensor, cache: Cache | None) -> gf.Tensor:
        """``[batch, count, width]`` of the same."""
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


def embedding(count: int, width: int, deviation: float) -> nn.Embedding:
    """A table of so many rows, normally distributed."""
    rows = gf.empty(count, width).normal_(std=deviation)
    return nn.Embedding.from_pretrained(rows, freeze=False)


class Head(nn.Module):
    """A linear layer without bias, by a weight that belongs to another module too."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """``[..., outputs]`` of ``[..., inputs]``."""
        return F.linear(x, self.weight)


class Transformer(nn.Module):
    """Embeddings of tokens and positions, the blocks, and a normalisation at the end."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.wte = embedding(config.vocabulary, config.width, 0.02)
        self.wpe = embedding(config.length, config.width, 0.01)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList([Block(config, layer) for layer in range(config.layers)])
        self.ln_f = nn.LayerNorm(config.width, eps=config.epsilon)

    def forward(self, tokens: gf.Tensor, cache: Cache | None) -> gf.Tensor:
        """``[batch, count, width]`` of tokens ``[batch, count]``."""
        count = tokens.shape[1]
        places = gf.arange(count) if cache is None else cache.places(count)
        x = self.drop(self.wte(tokens) + self.wpe(places))
        for block in self.h:
            x = block(x, cache)
        return self.ln_f(x)


class GPT(nn.Module):
    """GPT-2: the transformer, and scores of the next token by the embedding's own weight."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head = Head(self.transformer.wte.weight)
        self.generations: dict[int, Generation] = {}

    def forward(self, tokens: gf.Tensor, cache: Cache | None = None) -> gf.Tensor:
        """Scores ``[batch, count, vocabulary]`` of what follows each of the tokens."""
        return self.lm_head(self.transformer(tokens, cache))

    def generate(self, prompt: gf.Tensor, max_new_tokens: int, **sampling: Any) -> gf.Tensor:
        """Prompts ``[batch, count]`` and what follows (see ``generation.py`` for options)."""
        batch = prompt.shape[0]
        if batch not in self.generations:
            c = self.config
            cache = Cache(c.layers, batch, c.heads, c.length, c.width // c.heads)
            self.generations[batch] = Generation(self, cache, batch)
        return self.generations[batch](prompt, max_new_tokens, **sampling)


def load_pretrained(model: GPT, path: str | Path) -> None:
    """Load GPT-2's published weights, or what Hugging Face's ``save_pretrained`` wrote.

    The published files leave out ``transformer.`` and ``lm_head``, and hold the causal
    mask, which is no parameter.
    """
    found = {}
    for key, value in gf.load(path).items():
        if not key.endswith((".attn.bias", ".attn.masked_bias")):
            whole = key.startswith(("transformer.", "lm_head."))
            found[key if whole else f"transformer.{key}"] = value
    found.setdefault("lm_head.weight", found["transformer.wte.weight"])
    model.load_state_dict(found)


def decayed(model: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups: matrices decay, biases and normalisations do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def training_step(model: nn.Module, optimizer: Any) -> Any:
    """One update as a function of a batch: tokens, and the same shifted by one."""

    def step(tokens: gf.Tensor, following: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss

    return step


def make() -> tuple[GPT, Any]:
    """The model and its optimiser."""
    model = GPT(CHARACTERS)
    return model, optim.AdamW(decayed(model), lr=RATE, betas=(0.9, 0.95))


def specs() -> tuple[gf.TensorSpec, gf.TensorSpec]:
    """The types of a batch."""
    spec = gf.TensorSpec((BATCH, CHARACTERS.length), gf.int64)
    return spec, spec


def build() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow inspect`` and ``graphflow bench``: a step and its specs."""
    gf.manual_seed(0)
    return training_step(*make()), specs()


def inference() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow export models/gpt.py:inference``: the model and its specs."""
    gf.manual_seed(0)
    return make()[0].eval(), specs()[:1]


def held_out_loss(model: GPT, tokens: Any) -> float:
    """Nats a character over windows of the files that are not trained on."""
    windows = text.windows(tokens, model.config.length, limit=256)
    score = gf.compile(lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()))
    model.eval()
    with gf.no_grad():
        losses = [float(score(*batch)) for batch in text.batches(windows, BATCH)]
    model.train()
    return sum(losses) / len(losses)


def samples(model: GPT, count: int = 2) -> str:
    """What the model writes, likeliest first, then drawn."""
    prompt, size = gf.tensor([text.encode(PROMPT)]), model.config.length - len(PROMPT)
    lines = ["written greedily:", model.generate(prompt, size, greedy=True)]
    for number in range(count):
        lines += [f"drawn, sample {number + 1}:", model.generate(prompt, size, top_p=0.9)]
    return "\n".join(x if isinstance(x, str) else text.decode(x[0].tolist()) for x in lines)


def start(seed: int, root: Path) -> Session:
    """A fresh model and its data, the same for every mode."""
    gf.manual_seed(seed)
    model, optimizer = make()
    train, held_out = text.corpus()
    return Session(
        step=training_step(model, optimizer),
        specs=specs(),
        batches=text.Crops(train, CHARACTERS.length, BATCH, STEPS, seed),
        evaluate=lambda: held_out_loss(model, held_out),
        progress=warm_cosine(optimizer, RATE),
        show=lambda: samples(model),
    )


def describe(root: Path) -> str:
    """What is trained on what."""
    return f"{CHARACTERS.layers} layers of {CHARACTERS.width} on {text.describe()}"


TASK = Task("gpt", start, epochs=10, metric="validation loss", describe=describe)

if __name__ == "__main__":
    main(TASK)

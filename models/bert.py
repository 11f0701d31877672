"""BERT (Devlin et al. 2019): an encoder that learns to fill in characters left out of a text.

    python models/bert.py --minutes 2

Trains on the sources of Python's standard library and is measured on files that it
has not seen.  Parameters have the names of Hugging Face's checkpoints:
``load_pretrained(model, "model.safetensors")`` reads theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import text
from harness import Session, Task, main, warm_cosine

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim

BATCH, STEPS = 32, 100  # windows a step; steps an epoch
RATE, CLIP = 2e-3, 1.0
CHOSEN = 0.15  # of the tokens are asked for: 8 in 10 masked, 1 replaced, 1 left as it is
IGNORED = -100  # the label of the others
MASK = len(text.CHARACTERS)


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of the smaller published BERT."""

    vocabulary: int = 30522
    length: int = 512
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    kinds: int = 2
    dropout: float = 0.1
    epsilon: float = 1e-12


CHARACTERS = Config(MASK + 1, length=128, width=128, layers=4, heads=4, hidden=512, dropout=0.0)


class Embeddings(nn.Module):
    """The sum of what a token is, where it is, and which of two sentences it belongs to."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocabulary, config.width)
        self.position_embeddings = nn.Embedding(config.length, config.width)
        self.token_type_embeddings = nn.Embedding(config.kinds, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: gf.Tensor, kinds: gf.Tensor | None) -> gf.Tensor:
        """``[batch, count, width]`` of tokens ``[batch, count]``; all are of kind 0 by default."""
        x = self.word_embeddings(tokens) + self.position_embeddings(gf.arange(tokens.shape[1]))
        kind = self.token_type_embeddings.weight[0] if kinds is None else None
        x = x + (self.token_type_embeddings(kinds) if kind is None else kind)
        return self.dropout(self.LayerNorm(x))


class SelfAttention(nn.Module):
    """Every position looks at all that the mask allows, with several heads."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        for name in ("query", "key", "value"):
            self.add_module(name, nn.Linear(config.width, config.width))

    def forward(self, x: gf.Tensor, mask: gf.Tensor | None) -> gf.Tensor:
        """``[batch, count, width]`` of the same."""
        batch, count, width = x.shape
        query, key, value = (
            layer(x).reshape(batch, count, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        return y.transpose(1, 2).reshape(batch, count, width)


class Output(nn.Module):
    """A linear layer, added to what came in and normalised."""

    def __init__(self, inputs: int, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: gf.Tensor, before: gf.Tensor) -> gf.Tensor:
        """``[..., width]`` of ``x`` ``[..., inputs]`` and ``before`` ``[..., width]``."""
        return self.LayerNorm(self.dropout(self.dense(x)) + before)


class Attention(nn.Module):
    """Self-attention and its output."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.add_module("self", SelfAttention(config))
        self.output = Output(config.width, config)

    def forward(self, x: gf.Tensor, mask: gf.Tensor | None) -> gf.Tensor:
        """``[batch, count, width]`` of the same."""
        return self.output(self.get_submodule("self")(x, mask), x)


class Dense(nn.Module):
    """A linear layer and GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """``[..., outputs]`` of ``[..., inputs]``."""
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """Attention, and an MLP; each normalised after."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Dense(config.width, config.hidden)
        self.output = Output(config.hidden, config)

    def forward(self, x: gf.Tensor, mask: gf.Tensor | None) -> gf.Tensor:
        """``[batch, count, width]`` of the same."""
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class Transform(Dense):
    """A linear layer, GELU and a normalisation."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.width, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.epsilon)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """``[..., width]`` of the same."""
        return self.LayerNorm(super().forward(x))


class BERT(nn.Module):
    """The encoder, and scores of the tokens at every position by the embedding's own weight."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        layers = nn.ModuleList([Layer(config) for _ in range(config.layers)])
        encoder = nn.ModuleDict({"layer": layers})
        self.bert = nn.ModuleDict({"embeddings": Embeddings(config), "encoder": encoder})
        predictions = nn.ModuleDict({"transform": Transform(config)})
        self.cls = nn.ModuleDict({"predictions": predictions})
        predictions.register_parameter("bias", nn.Parameter(gf.zeros(config.vocabulary)))
        with gf.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.02)
                elif name.endswith("bias"):
                    parameter.zero_()

    def forward(
        self, tokens: gf.Tensor, present: gf.Tensor | None = None, kinds: gf.Tensor | None = None
    ) -> gf.Tensor:
        """Scores ``[batch, count, vocabulary]``; ``present`` is True (or 1) where a token is."""
        mask = None if present is None else present[:, None, None, :] != 0
        x = self.bert["embeddings"](tokens, kinds)
        for layer in self.bert["encoder"]["layer"]:
            x = layer(x, mask)
        predictions = self.cls["predictions"]
        words = self.bert["embeddings"].word_embeddings.weight
        return F.linear(predictions["transform"](x), words, predictions.bias)


def load_pretrained(model: BERT, path: str | Path) -> None:
    """Load BERT's published weights, or what Hugging Face's ``save_pretrained`` wrote.

    The first published files call the weight and bias of a normalisation gamma and
    beta, and hold a second task's weights, which have no place here.
    """
    parts = ("bert.embeddings.", "bert.encoder.", "cls.predictions.")
    beside = ("decoder.weight", "decoder.bias", "position_ids")  # tied, and no parameter
    found = {}
    for key, value in gf.load(path).items():
        name = key.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if name.startswith(parts) and not name.endswith(beside):
            found[name] = value
    model.load_state_dict(found)


def masked(tokens: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
    """Tokens with some masked or replaced, and labels: what was chosen, else ``IGNORED``."""
    chosen, share = gf.rand(tokens.shape) < CHOSEN, gf.rand(tokens.shape)
    others = gf.randint(0, MASK, tuple(tokens.shape))
    shown = gf.where(share < 0.8, MASK, gf.where(share < 0.9, others, tokens))
    return gf.where(chosen, shown, tokens), gf.where(chosen, tokens, IGNORED)


def loss_of(model: BERT, tokens: gf.Tensor) -> gf.Tensor:
    """Mean cross entropy of what was chosen in a batch."""
    shown, labels = masked(tokens)
    scores = model(shown).flatten(0, 1)
    return F.cross_entropy(scores, labels.flatten(), ignore_index=IGNORED)


def training_step(model: BERT, optimizer: Any) -> Any:
    """One update as a function of tokens; the masks are drawn in the step."""

    def step(tokens: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, tokens)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss

    return step


def make() -> tuple[BERT, Any]:
    """The model and its optimiser."""
    model = BERT(CHARACTERS)
    return model, optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)


def specs() -> tuple[gf.TensorSpec]:
    """The type of a batch."""
    return (gf.TensorSpec((BATCH, CHARACTERS.length), gf.int64),)


def build() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow inspect`` and ``graphflow bench``: a step and its specs."""
    gf.manual_seed(0)
    return training_step(*make()), specs()


def inference() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow export models/bert.py:inference``: the model and its specs."""
    gf.manual_seed(0)
    return make()[0].eval(), specs()


def held_out(codes: Any) -> gf.Tensor:
    """Windows ``[count, length]`` of the files that are not trained on."""
    windows = text.windows(codes, CHARACTERS.length, limit=256)
    return next(text.batches(windows, len(windows)))[0]


def accuracy(model: BERT, tokens: gf.Tensor, seed: int) -> float:
    """The part of the masked characters that the model names rightly."""
    gf.manual_seed(seed)
    shown, labels = masked(tokens)
    model.eval()
    with gf.no_grad():
        likeliest = gf.cat([model(part).argmax(-1) for part in shown.split(BATCH)])
    model.train()
    asked = labels != IGNORED
    return int(((likeliest == labels) & asked).sum()) / int(asked.sum())


def example(model: BERT, line: str = "    for name in sorted(self._names):") -> str:
    """A line with every eighth character masked, and as the model fills it in."""
    tokens = gf.tensor([text.encode(line)])
    asked = gf.arange(len(line)) % 8 == 7
    model.eval()
    with gf.no_grad():
        likeliest = model(gf.where(asked, MASK, tokens)).argmax(-1)
    model.train()
    filled = gf.where(asked, likeliest, tokens)[0].clamp(max=MASK - 1)
    shown = "".join("_" if hidden else c for c, hidden in zip(line, asked.tolist(), strict=True))
    return f"masked:    {shown}\nfilled in: {text.decode(filled.tolist())}"


def start(seed: int, root: Path) -> Session:
    """A fresh model and its data, the same for every mode."""
    gf.manual_seed(seed)
    model, optimizer = make()
    train, others = text.corpus()
    tokens = held_out(others)
    return Session(
        step=training_step(model, optimizer),
        specs=specs(),
        batches=text.Crops(train, CHARACTERS.length, BATCH, STEPS, seed, shifted=False),
        evaluate=lambda: accuracy(model, tokens, seed=0),
        progress=warm_cosine(optimizer, RATE),
        show=lambda: example(model),
    )


def describe(root: Path) -> str:
    """What is trained on what."""
    return f"{CHARACTERS.layers} layers of {CHARACTERS.width} on {text.describe()}"


TASK = Task("bert", start, epochs=10, metric="accuracy on masked characters", describe=describe)

if __name__ == "__main__":
    main(TASK)

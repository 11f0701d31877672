"""An encoder and a decoder with attention (Vaswani et al. 2017) that respell names.

    python models/seq2seq_attention.py

Reads a name of Python's standard library as its author wrote it (``parse_http_date``,
``HTTPServer``, ``_getAttr``) and writes its words in lower case, the last one first
(``date http parse``).  Measured on names that it has not seen.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import text
from harness import Session, Task, main, warm_cosine

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.utils.data import DataLoader, TensorDataset

BATCH, LONGEST = 64, 20
WIDTH, HEADS, LAYERS = 64, 4, 2
RATE, CLIP = 3e-3, 1.0
LETTERS = "\0\1 _abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
END, BEGIN = 0, 1  # what ends a text and fills it up, and what comes before its first letter
IGNORED = -100  # the label of what comes after the end
CODES = {letter: code for code, letter in enumerate(LETTERS)}
NAME = re.compile(r"\b[A-Za-z_][A-Za-z0-9_]*\b")
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def respelled(name: str) -> str:
    """The words of a name in lower case, the last one first."""
    return " ".join(reversed([word.lower() for word in WORD.findall(name)]))


@functools.cache
def names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of several words in the sources; those to train on, and every tenth to test."""
    found: set[str] = set()
    for path in text.files():
        found.update(NAME.findall(path.read_text("utf-8", "replace")))
    chosen = sorted(n for n in found if len(n) < LONGEST and " " in respelled(n))
    chosen = [n for n in chosen if len(respelled(n)) < LONGEST]
    order = np.random.default_rng(0).permutation(len(chosen))
    mixed = [chosen[place] for place in order]
    tenth = len(mixed) // 10
    return tuple(mixed[tenth:]), tuple(mixed[:tenth])


def encode(texts: tuple[str, ...]) -> gf.Tensor:
    """Codes ``[count, LONGEST]``, filled up with ``END``."""
    codes = np.zeros((len(texts), LONGEST), np.int64)
    for row, line in zip(codes, texts, strict=True):
        row[: len(line)] = [CODES[letter] for letter in line]
    return gf.from_numpy(codes)


def decode(codes: list[int]) -> str:
    """The letters before the end."""
    end = codes.index(END) if END in codes else len(codes)
    return "".join(LETTERS[code] for code in codes[:end])


class Translator(nn.Module):
    """Reads a text, and gives scores of every next letter of another."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), WIDTH)
        self.places = nn.Embedding(LONGEST, WIDTH)
        self.transformer = nn.Transformer(
            WIDTH, HEADS, LAYERS, LAYERS, 4 * WIDTH, dropout=0.1, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(WIDTH, len(LETTERS))

    def forward(self, source: gf.Tensor, written: gf.Tensor) -> gf.Tensor:
        """Scores ``[batch, LONGEST, letters]`` of what follows each letter of ``written``."""
        later = gf.ones(LONGEST, LONGEST, dtype=gf.bool).triu(1)
        absent = source == END
        out = self.transformer(
            self.embedded(source), self.embedded(written), tgt_mask=later,
            src_key_padding_mask=absent, memory_key_padding_mask=absent,
        )  # fmt: skip
        return self.head(out)

    def embedded(self, codes: gf.Tensor) -> gf.Tensor:
        """``[batch, LONGEST, WIDTH]``: which letter, and where."""
        return self.letters(codes) + self.places(gf.arange(LONGEST))


def begun(target: gf.Tensor) -> gf.Tensor:
    """What the decoder sees: ``BEGIN``, and all but the last letter."""
    return F.pad(target[:, :-1], (1, 0), value=BEGIN)


def labels_of(target: gf.Tensor) -> gf.Tensor:
    """What the decoder should write: the letters and one ``END``; the rest is ignored."""
    return gf.where((target == END) & (begun(target) == END), IGNORED, target)


def training_step(model: nn.Module, optimizer: Any) -> Any:
    """One update as a function of a batch of texts and what to write."""

    def step(source: gf.Tensor, target: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        scores = model(source, begun(target)).flatten(0, 1)
        loss = F.cross_entropy(scores, labels_of(target).flatten(), ignore_index=IGNORED)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss

    return step


def make() -> tuple[Translator, Any]:
    """The model and its optimiser."""
    model = Translator()
    return model, optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98))


def specs() -> tuple[gf.TensorSpec, gf.TensorSpec]:
    """The types of a batch."""
    spec = gf.TensorSpec((BATCH, LONGEST), gf.int64)
    return spec, spec


def build() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow inspect`` and ``graphflow bench``: a step and its specs."""
    gf.manual_seed(0)
    return training_step(*make()), specs()


def inference() -> tuple[Any, tuple[Any, ...]]:
    """For ``graphflow export models/seq2seq_attention.py:inference``: the model and its specs."""
    gf.manual_seed(0)
    return make()[0].eval(), specs()


def translate(model: Translator, source: gf.Tensor) -> gf.Tensor:
    """The likeliest letter after letter: codes ``[batch, LONGEST]``."""

    def append(written: gf.Tensor, place: gf.Tensor) -> gf.Tensor:
        likeliest = model(source, written).argmax(-1)
        return gf.where(gf.arange(LONGEST) == place + 1, likeliest.roll(1, 1), written)

    model.eval()
    with gf.no_grad():
        append, written = gf.compile(append), gf.full(tuple(source.shape), BEGIN)
        for place in range(LONGEST - 1):
            written = append(written, gf.tensor(place))
    model.train()
    return F.pad(written[:, 1:], (0, 1), value=END)


def accuracy(model: Translator, source: gf.Tensor, target: gf.Tensor) -> float:
    """The part of the names that are respelled without a mistake."""
    written = translate(model, source).tolist()
    pairs = zip(written, target.tolist(), strict=True)
    return sum(decode(a) == decode(b) for a, b in pairs) / len(written)


def examples(model: Translator, chosen: tuple[str, ...]) -> str:
    """Some names and what the model writes."""
    written = translate(model, encode(chosen)).tolist()
    return "\n".join(f"{n:>20} → {decode(w)}" for n, w in zip(chosen, written, strict=True))


def start(seed: int, root: Path) -> Session:
    """A fresh model and its data, the same for every mode."""
    gf.manual_seed(seed)
    model, optimizer = make()
    train, test = names()
    pairs = TensorDataset(encode(train), encode(tuple(map(respelled, train))))
    source, target = encode(test[:500]), encode(tuple(map(respelled, test[:500])))
    return Session(
        step=training_step(model, optimizer),
        specs=specs(),
        batches=DataLoader(pairs, BATCH, shuffle=True, drop_last=True, generator=seed),
        evaluate=lambda: accuracy(model, source, target),
        progress=warm_cosine(optimizer, RATE),
        show=lambda: examples(model, test[:8]),
    )


def describe(root: Path) -> str:
    """What is trained on what."""
    train, test = names()
    return f"{len(train):,} names of Python's standard library, {len(test):,} others to test"


TASK = Task("seq2seq_attention", start, epochs=15, metric="names right", describe=describe)

if __name__ == "__main__":
    main(TASK)

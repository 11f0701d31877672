"""What sequence models train with, in compiled steps as eagerly: tables, CTC, clipping, ties."""

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from graphflow.nn import functional as F
from tests.front import agree

rng = np.random.default_rng(23)
TOKENS = gf.tensor(rng.integers(0, 9, (3, 5)))
LABELS = gf.tensor(np.where(rng.random((3, 5)) < 0.3, -100, rng.integers(0, 9, (3, 5))))


class Tagger(nn.Module):
    """Embedding, GRU, and scores by the embedding's own weight."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 6, padding_idx=0)
        self.gru = nn.GRU(6, 6, batch_first=True)
        self.head = nn.Linear(6, 9)
        self.head.weight = self.table.weight

    def loss(self, tokens, labels):
        scores = self.head(self.gru(self.table(tokens))[0])
        return F.cross_entropy(scores.flatten(0, 1), labels.flatten())


class Bags(nn.Module):
    """A bag of tokens and its class."""

    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(9, 4, mode="mean", padding_idx=0)
        self.head = nn.Linear(4, 9)

    def loss(self, tokens, labels):
        return F.cross_entropy(self.head(self.bag(tokens)), labels[:, 0], ignore_index=-100)


class Speech(nn.Module):
    """CTC over what an RNN hears."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.rnn = nn.RNN(4, 9, batch_first=True)

    def loss(self, tokens, labels):
        logs = F.log_softmax(self.rnn(self.table(tokens))[0].transpose(0, 1), -1)
        wanted, times = gf.tensor([[1, 2], [3, 3], [4, 1]]), gf.tensor([5, 5, 4])
        return F.ctc_loss(logs, wanted, times, gf.tensor([2, 2, 1]))


def clip_norm(parameters):
    return nn.utils.clip_grad_norm_(parameters, 0.05)


def clip_value(parameters):
    nn.utils.clip_grad_value_(parameters, 0.01)
    return gf.zeros(())


@pytest.mark.parametrize(
    ("model", "clip"), [(Tagger, clip_norm), (Bags, clip_value), (Speech, clip_norm)]
)
def test_steps_agree(model, clip):
    def program(jit):
        net = model()
        parameters = list(net.parameters())
        optimizer = gf.optim.Adam(parameters, lr=0.01)

        @jit
        def step(tokens, labels):
            optimizer.zero_grad()
            loss = net.loss(tokens, labels)
            loss.backward()
            norm = clip(parameters)
            optimizer.step()
            return loss, norm

        made = [step(TOKENS, LABELS) for _ in range(3)]
        assert made[2][0] < made[0][0]
        return made + parameters

    agree(program, rtol=1e-4, atol=1e-5)

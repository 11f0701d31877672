"""The sequence models in the words that PyTorch and GraphFlow share."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from benchmarks.networks import Language, Network


def program(framework: ModuleType, workload: Network) -> tuple[Any, Any]:
    """The model and its optimiser; ``framework`` is ``torch`` or ``graphflow``."""
    optim, parameters = framework.optim, workload.parameters()
    if isinstance(workload, Language):
        model = language(framework, workload)
        options = {"lr": workload.lr, "weight_decay": workload.weight_decay}
        optimizer = optim.AdamW(model.parameters(), **options)
    else:
        model = recurrent(framework, workload)
        optimizer = optim.Adam(model.parameters(), lr=workload.lr)
    model.load_state_dict({n: framework.from_numpy(value) for n, value in parameters.items()})
    return model, optimizer


def language(framework: ModuleType, workload: Language) -> Any:
    """Blocks of attention and an MLP, normalised before, between embeddings and a head."""
    nn, F, d = framework.nn, framework.nn.functional, workload.width
    heads = workload.heads

    class Block(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
            self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

        def forward(self, x: Any) -> Any:
            batch, length, _ = x.shape
            q, k, v = (
                part.view(batch, length, heads, d // heads).transpose(1, 2)
                for part in self.qkv(self.norm1(x)).split(d, 2)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(batch, length, d))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(workload.vocabulary, d)
            self.places = nn.Embedding(workload.length, d)
            self.blocks = nn.ModuleList([Block() for _ in range(workload.layers)])
            self.norm = nn.LayerNorm(d)
            self.head = nn.Linear(d, workload.vocabulary, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.places(framework.arange(workload.length))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)).flatten(0, 1)

    return GPT()


def recurrent(framework: ModuleType, workload: Any) -> Any:
    """LSTM layers, and a linear layer on what is left after the last step."""
    nn = framework.nn

    class LSTM(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            sizes = workload.inputs, workload.hidden, workload.layers
            self.lstm = nn.LSTM(*sizes, batch_first=True)
            self.head = nn.Linear(workload.hidden, workload.classes)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    return LSTM()

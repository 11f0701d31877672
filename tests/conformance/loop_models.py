"""Small models for loops, of either library: each takes ``torch`` or ``graphflow``."""

from __future__ import annotations

from typing import Any


def rows(lib: Any) -> Any:
    """[n, 12] to [n, 6]."""
    nn = lib.nn
    layers = nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 6)
    return nn.Sequential(*layers)


def images(lib: Any) -> Any:
    """[n, 3, 10, 10] to [n, 6]."""
    nn = lib.nn
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 8, 3, padding=1), nn.SiLU(), nn.GroupNorm(2, 8), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 6),
    )  # fmt: skip


def norms(lib: Any) -> Any:
    """[n, 12] to [n, 6], with a parametrised weight."""
    nn = lib.nn
    first = nn.utils.parametrizations.weight_norm(nn.Linear(12, 16))
    return nn.Sequential(first, nn.LayerNorm(16), nn.PReLU(), nn.Linear(16, 6))


def several(lib: Any) -> Any:
    """[n, 12] to logits, what was read, hidden values and numbers; more with ``more``."""

    class Several(lib.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = lib.nn.Linear(12, 8), lib.nn.Linear(8, 12)
            self.head = lib.nn.Linear(8, 6)

        def forward(self, x: Any, more: bool = True) -> dict[str, Any]:
            h = lib.tanh(self.down(x))
            made = {"logits": self.head(h), "read": self.up(h), "h": h.detach()}
            return {**made, "more": (h, h.mean())} if more else made

    return Several()


def words(lib: Any) -> Any:
    """[n, t] to scores [n, t, 17] and a state; both ends share one table."""

    class Words(lib.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.table = lib.nn.Embedding(17, 8)
            self.cells = lib.nn.GRU(8, 8, batch_first=True)
            self.head = lib.nn.Linear(8, 17, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x: Any, state: Any = None) -> Any:
            y, state = self.cells(self.table(x), state)
            return self.head(y), state

    return Words()


def own_rule(lib: Any) -> Any:
    """[n, 12] to [n, 6] through a function with a rule of its own; counts its calls."""

    class Square(lib.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, w: Any) -> Any:
            ctx.save_for_backward(x, w)
            return x * x * w

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            x, w = ctx.saved_tensors
            return 1.8 * x * w * ct, (ct * x * x).sum(0)

    class Squared(lib.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = lib.nn.Linear(12, 8), lib.nn.Linear(8, 6)
            self.w = lib.nn.Parameter(lib.ones(8))
            self.register_buffer("calls", lib.zeros(()))

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return self.last(Square.apply(self.first(x), self.w) / self.calls)

    return Squared()


def attending(lib: Any) -> Any:
    """[n, t] to [n, t, 17], with an optional mask."""

    class Attending(lib.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = lib.nn.Embedding(17, 16), lib.nn.Linear(16, 17)
            options = {"dropout": 0.0, "batch_first": True, "norm_first": True}
            self.layer = lib.nn.TransformerEncoderLayer(16, 2, 32, **options)

        def forward(self, x: Any, mask: Any = None) -> Any:
            return self.head(self.layer(self.table(x), src_mask=mask))

    return Attending()


def filtered(lib: Any) -> Any:
    """[n, 12] to [n, 6], with complex weights for the frequencies."""

    class Filter(lib.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.gains = lib.nn.Parameter(lib.ones(7, dtype=lib.complex128) * (1 + 0.5j))

        def forward(self, x: Any) -> Any:
            return lib.fft.irfft(lib.fft.rfft(x) * self.gains, n=12)

    return lib.nn.Sequential(Filter(), lib.nn.Tanh(), Filter(), lib.nn.Linear(12, 6))


def leaving(lib: Any) -> Any:
    """[n, 12] to [n, 6]; attributes hold what was carried, and what is of use to others."""

    class Leaving(lib.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = lib.nn.GRUCell(12, 8), lib.nn.Linear(8, 6)
            self.register_buffer("mean", lib.zeros(8))
            self.carried = self.penalty = self.weights = None

        def forward(self, x: Any) -> Any:
            if self.carried is None or self.carried.shape[0] != x.shape[0]:
                self.carried = x.new_zeros(x.shape[0], 8)
            h = self.cell(x, self.carried)
            self.carried = h.detach()
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
            self.weights = lib.softmax(h - self.mean, 1)
            self.penalty = self.weights.square().sum(1).mean()
            return self.head(self.weights * h)

    return Leaving()

"""The model of ``models/gpt.py`` in PyTorch, eagerly, with a cache of keys and values."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


class Writer:
    """Writes behind a prompt, at batch 1, with ``weights`` by the names of GPT-2.

    The cache is allocated once; attention runs over the part of it that is filled.
    """

    def __init__(self, config: Any, weights: dict[str, Any]) -> None:
        self.config, self.size = config, config.width // config.heads
        # Linear layers as PyTorch stores them, outputs first.
        self.w = {
            name: torch.from_numpy(value.T.copy() if ".c_" in name and value.ndim == 2 else value)
            for name, value in weights.items()
        }
        prefixes = [f"h.{layer}." for layer in range(config.layers)]
        self.layers = [
            {k[len(p) :]: v for k, v in self.w.items() if k.startswith(p)} for p in prefixes
        ]
        shape = (config.layers, 2, 1, config.heads, config.length, self.size)
        self.cache = torch.zeros(shape).unbind(0)

    def linear(self, x: Any, p: dict[str, Any], name: str) -> Any:
        """A linear layer of the parameters ``p``."""
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def norm(self, x: Any, p: dict[str, Any], name: str) -> Any:
        """A layer normalisation."""
        c = self.config
        return F.layer_norm(x, (c.width,), p[f"{name}.weight"], p[f"{name}.bias"], c.epsilon)

    def attend(self, x: Any, p: dict[str, Any], stored: Any, begin: int) -> Any:
        """Attention of positions from ``begin`` on to themselves and those before."""
        count, end = x.shape[1], begin + x.shape[1]
        parts = self.linear(x, p, "attn.c_attn").view(1, count, 3, self.config.heads, self.size)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        keys, values = stored[0], stored[1]
        keys[:, :, begin:end] = key
        values[:, :, begin:end] = value
        y = F.scaled_dot_product_attention(
            query, keys[:, :, :end], values[:, :, :end], is_causal=count > 1
        )
        y = y.transpose(1, 2).reshape(1, count, self.config.width)
        return self.linear(y, p, "attn.c_proj")

    def scores(self, tokens: Any, begin: int) -> Any:
        """Scores of what follows ``tokens``, the first of which is number ``begin``."""
        w = self.w
        x = F.embedding(tokens, w["wte.weight"]) + w["wpe.weight"][begin : begin + tokens.shape[1]]
        for p, stored in zip(self.layers, self.cache, strict=True):
            x = x + self.attend(self.norm(x, p, "ln_1"), p, stored, begin)
            hidden = self.linear(self.norm(x, p, "ln_2"), p, "mlp.c_fc")
            x = x + self.linear(F.gelu(hidden, approximate="tanh"), p, "mlp.c_proj")
        return F.linear(self.norm(x[:, -1], w, "ln_f"), w["wte.weight"])

    @torch.inference_mode()
    def __call__(self, prompt: list[int], count: int, greedy: bool) -> list[int]:
        """The prompt and ``count`` tokens behind it."""
        new = torch.tensor([prompt])
        written, place = [new], 0
        for _ in range(count):
            logits = self.scores(new, place)
            place += new.shape[1]
            if greedy:
                new = logits.argmax(-1, keepdim=True)
            else:
                new = torch.multinomial(F.softmax(logits, -1), 1)
            written.append(new)
        tokens: list[int] = torch.cat(written, 1)[0].tolist()
        return tokens

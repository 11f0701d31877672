"""The Fourier transform of a signal's overlapping stretches, and back.

The inverse adds the stretches up and divides by the sum of the squared windows (Griffin and
Lim, "Signal estimation from modified short-time Fourier transform", 1984).
"""

from __future__ import annotations

from typing import Any

from graphflow.checks import need_int, need_tensor
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.fft import fft, ifft, irfft, rfft
from graphflow.functions.complex_numbers import view_as_real
from graphflow.functions.creation import arange, ones
from graphflow.functions.padding import constant, reflected, replicated, wrapped
from graphflow.ir import types as T
from graphflow.mode import mode
from graphflow.records import NamedTuple
from graphflow.tensor import Tensor

__all__ = ["istft", "stft"]
METHODS = ("istft", "stft")

_BORDERS = {
    "constant": constant, "reflect": reflected, "replicate": replicated, "circular": wrapped,
}  # fmt: skip
_LEAST = 1e-11
"""The smallest sum of squared windows that a sample can be divided by."""


class _Stretches(NamedTuple):
    """How a signal is cut: lengths in samples, and the window, as long as a stretch."""

    size: int
    hop: int
    window: Tensor


def _stretches(
    name: str, like: Tensor, n_fft: int, hop: int | None, length: int | None, window: Any
) -> _Stretches:
    size = need_int(f"{name}: n_fft", n_fft, 1)
    step = size // 4 if hop is None else need_int(f"{name}: hop_length", hop)
    width = size if length is None else need_int(f"{name}: win_length", length)
    if step <= 0:
        raise GraphFlowError(f"{name}: hop_length should be positive, got {step}")
    if not 0 < width <= size:
        raise GraphFlowError(f"{name}: win_length should be in 1 to n_fft = {size}, got {width}")
    if window is None:
        real = {T.complex64: T.float32, T.complex128: T.float64}.get(like.dtype, like.dtype)
        window = ones(width, dtype=real, device=like.device)
    if tuple(window.shape) != (width,):
        raise ShapeError(
            f"{name}: window should have the shape [{width}], got {list(window.shape)}"
        )
    before = (size - width) // 2
    return _Stretches(size, step, constant(window, [(before, size - width - before)]))


def stft(
    input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: Tensor | None = None, center: bool = True, pad_mode: str = "reflect",
    normalized: bool = False, onesided: bool | None = None,
    return_complex: bool | None = None,
) -> Tensor:  # fmt: skip
    """Transforms of stretches of ``n_fft`` samples, ``hop_length`` (a quarter) apart.

    ``input`` [time] or [batch, time] gives [..., frequencies, stretches]: n_fft // 2 + 1
    frequencies of a real signal (``onesided``), else n_fft.  Stretches are multiplied by
    ``window`` [win_length], in their middle.  ``center``: stretch t is centred on sample
    t * hop_length, the signal being continued by ``pad_mode``.  ``normalized`` divides by
    sqrt(n_fft).  ``return_complex=False``: real and imaginary part along a last axis.
    """
    signal = need_tensor("stft", input)
    if signal.ndim not in (1, 2):
        raise ShapeError(f"stft: expected a signal of 1 or 2 dimensions, got {signal.ndim}")
    cut = _stretches("stft", signal, n_fft, hop_length, win_length, window)
    is_complex = signal.is_complex() or cut.window.is_complex()
    if return_complex is None and not is_complex:
        raise GraphFlowError("stft: return_complex must be given for real inputs")
    one_side = not is_complex if onesided is None else onesided
    if one_side and is_complex:
        raise GraphFlowError("stft: onesided is for real signals and windows")
    rows: Any = signal if signal.ndim == 2 else signal.unsqueeze(0)
    if center:
        if pad_mode not in _BORDERS:
            raise GraphFlowError(
                f"stft: pad_mode is one of {', '.join(_BORDERS)}, not {pad_mode!r}"
            )
        rows = _BORDERS[pad_mode](rows, [(0, 0), (cut.size // 2, cut.size // 2)])
    if rows.shape[1] < cut.size:
        raise ShapeError(f"stft: {rows.shape[1]} samples are less than n_fft = {cut.size}")
    parts = rows.unfold(-1, cut.size, cut.hop) * cut.window
    found: Any = (rfft if one_side else fft)(parts).transpose(1, 2)
    if normalized:
        found = found * cut.size**-0.5
    if signal.ndim == 1:
        found = found.squeeze(0)
    return view_as_real(found) if return_complex is False else found


def istft(
    input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: Tensor | None = None, center: bool = True, normalized: bool = False,
    onesided: bool | None = None, length: int | None = None, return_complex: bool = False,
) -> Tensor:  # fmt: skip
    """The signal [time] or [batch, time] whose :func:`stft` is nearest ``input``.

    Arguments as there.  ``length``: so many samples, zeros after the last that is known.  An
    error if some sample lies in no window.
    """
    spectrum: Any = need_tensor("istft", input)
    if not spectrum.is_complex():
        raise GraphFlowError(f"istft: expected a complex tensor, got {spectrum.dtype}")
    if spectrum.ndim not in (2, 3):
        raise ShapeError(f"istft: expected 2 or 3 dimensions, got {spectrum.ndim}")
    cut = _stretches("istft", spectrum, n_fft, hop_length, win_length, window)
    wanted = cut.size // 2 + 1
    one_side = spectrum.shape[-2] != cut.size if onesided is None else onesided
    if spectrum.shape[-2] != (wanted if one_side else cut.size):
        raise ShapeError(
            f"istft: expected {wanted if one_side else cut.size} frequencies for n_fft = "
            f"{cut.size}, got {spectrum.shape[-2]}"
        )
    rows = spectrum if spectrum.ndim == 3 else spectrum.unsqueeze(0)
    rows = rows.transpose(1, 2) * (cut.size**0.5 if normalized else 1.0)
    parts: Any = irfft(rows, cut.size) if one_side else ifft(rows)
    if not (one_side or return_complex):
        parts = parts.real
    weights = cut.window.square().expand(1, rows.shape[1], cut.size)
    whole, weight = _added(parts * cut.window, cut), _added(weights, cut)
    begin = cut.size // 2 if center else 0
    end = whole.shape[1] - (begin if length is None else 0)
    if length is not None:
        end = min(end, begin + length)
    whole, weight = whole[:, begin:end], weight[:, begin:end]
    if mode.tracer is None and not bool((weight.abs() > _LEAST).all()):
        raise GraphFlowError("istft: some samples lie in no window (the sum of squares is 0)")
    made: Tensor = whole / weight
    if length is not None and made.shape[1] < length:
        made = constant(made, [(0, 0), (0, length - made.shape[1])])
    return made if spectrum.ndim == 3 else made.squeeze(0)


def _added(parts: Tensor, cut: _Stretches) -> Any:
    """Stretches [batch, count, size] one over the other [batch, time]."""
    batch, count, size = parts.shape
    at = arange(count).unsqueeze(1) * cut.hop + arange(size)
    whole = parts.new_zeros((batch, (count - 1) * cut.hop + size))
    return whole.index_add(1, at.reshape(-1), parts.reshape(batch, -1))

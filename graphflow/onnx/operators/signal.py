"""Fourier transforms, windows for them, and spectra."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.onnx.operators.table import dtype_of, gf, number, operator
from graphflow.tensor import Tensor


@operator("DFT", known=("dft_length", "axis"))
def dft(
    input: Tensor, dft_length: Any = None, axis: Any = None, *, inverse: int = 0,
    onesided: int = 0, opset: int,
) -> Any:  # fmt: skip
    """The Fourier transform along an axis; the last axis holds real (and imaginary) parts."""
    dim = number(axis) if axis is not None else (-2 if opset >= 20 else 1)
    dim = dim % input.ndim
    length = None if dft_length is None else int(number(dft_length))
    if inverse and onesided:
        spectrum = gf.view_as_complex(input.contiguous())
        count = length or 2 * (spectrum.shape[dim] - 1)
        return gf.fft.irfft(spectrum, count, dim).unsqueeze(-1)
    if input.shape[-1] == 1:
        x = input.squeeze(-1)
        if onesided:
            return gf.view_as_real(gf.fft.rfft(x, length, dim))
        return gf.view_as_real((gf.fft.ifft if inverse else gf.fft.fft)(x, length, dim))
    x = gf.view_as_complex(input.contiguous())
    found = (gf.fft.ifft if inverse else gf.fft.fft)(x, length, dim)
    if onesided:
        found = gf.narrow(found, dim, 0, found.shape[dim] // 2 + 1)
    return gf.view_as_real(found)


@operator("STFT", known=("frame_step", "frame_length"))
def stft(
    signal: Tensor, frame_step: Any, window: Tensor | None = None, frame_length: Any = None, *,
    onesided: int = 1,
) -> Any:  # fmt: skip
    """Fourier transforms of overlapping frames of a signal [batch, length, 1]."""
    step = int(number(frame_step))
    given = frame_length if frame_length is not None or window is None else window.shape[0]
    length = int(number(given))
    frames = signal.squeeze(-1).unfold(1, length, step)
    if window is not None:
        frames = gf.mul(frames, window)
    return gf.view_as_real((gf.fft.rfft if onesided else gf.fft.fft)(frames, None, -1))


_MEL = ("num_mel_bins", "dft_length", "sample_rate", "lower_edge_hertz", "upper_edge_hertz")


@operator("MelWeightMatrix", known=_MEL)
def mel_weights(
    num_mel_bins: Any, dft_length: Any, sample_rate: Any, lower_edge_hertz: Any,
    upper_edge_hertz: Any, *, output_datatype: int = 1,
) -> Any:  # fmt: skip
    """Triangles over the bins of a spectrum, evenly spaced on the mel scale."""
    bins, length, rate = (int(number(x)) for x in (num_mel_bins, dft_length, sample_rate))
    edges = [2595 * np.log10(1 + number(x) / 700) for x in (lower_edge_hertz, upper_edge_hertz)]
    mels = np.arange(bins + 2) * ((edges[1] - edges[0]) / (bins + 2)) + edges[0]
    places = ((length + 1) * (700 * (10 ** (mels / 2595) - 1)) // rate).astype(int)
    made = np.zeros((length // 2 + 1, bins))
    for k in range(bins):
        low, centre, high = places[k : k + 3]
        if low == centre:
            made[centre, k] = 1
        else:
            for j in range(low, centre + 1):
                made[j, k] = (j - low) / (centre - low)
        for j in range(centre, high) if high > centre else ():
            made[j, k] = (high - j) / (high - centre)
    return gf.tensor(made.astype(dtype_of(output_datatype).numpy))

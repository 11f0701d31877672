"""Windows and short-time Fourier transforms beside SciPy's."""

import numpy as np
import pytest
from scipy import signal

import graphflow as gf

rng = np.random.default_rng(8)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 12])
def test_windows_beside_scipy(length, periodic):
    for name, theirs in [
        ("hann", "hann"), ("hamming", "hamming"), ("blackman", "blackman"),
        ("bartlett", "bartlett"), ("kaiser", ("kaiser", 12.0)),
    ]:  # fmt: skip
        made = getattr(gf, f"{name}_window")(length, periodic, dtype=gf.float64)
        expected = signal.get_window(theirs, length, fftbins=periodic) if length else np.zeros(0)
        np.testing.assert_allclose(made.numpy(), expected, atol=1e-15)
    assert gf.hann_window(4).dtype is gf.float32


@pytest.mark.parametrize(("size", "hop", "width"), [(16, 4, 16), (15, 5, 9), (8, 8, 8)])
def test_transform_beside_scipy_and_back(size, hop, width):
    x = rng.standard_normal((2, 61))
    window = signal.get_window("hamming", width)
    given = (size, hop, width, gf.tensor(window))
    found = gf.stft(gf.tensor(x), *given, return_complex=True)
    before = (size - width) // 2
    whole = np.pad(window, (before, size - width - before))
    padded = np.pad(x, ((0, 0), (size // 2, size // 2)), mode="reflect")
    count = (padded.shape[1] - size) // hop + 1
    parts = np.stack([padded[:, t * hop : t * hop + size] * whole for t in range(count)], 1)
    np.testing.assert_allclose(found.numpy(), np.fft.rfft(parts).transpose(0, 2, 1), atol=1e-12)
    halves = gf.stft(gf.tensor(x), *given, normalized=True, return_complex=False)
    np.testing.assert_allclose(halves.numpy()[..., 1] * size**0.5, found.numpy().imag, atol=1e-12)
    compiled = gf.compile(lambda x: gf.stft(x, *given, onesided=False, return_complex=True))
    both = compiled(gf.tensor(x))
    np.testing.assert_allclose(both.numpy()[:, : size // 2 + 1], found.numpy(), atol=1e-12)
    for spectrum in (found, both):
        back = spectrum.istft(*given, length=61).numpy()
        known = (count - 1) * hop
        np.testing.assert_allclose(back[:, :known], x[:, :known], atol=1e-12)
        assert back.shape == (2, 61)


def test_gradient_of_a_spectrogram():
    x = gf.tensor(rng.standard_normal(24)).requires_grad_()
    window = gf.hann_window(8, dtype=gf.float64)

    def energy(x):
        return gf.stft(x, 8, window=window, return_complex=True).abs().square()

    assert gf.autograd.gradcheck(energy, (x,))


def test_mistakes_are_one_clear_error():
    x = gf.ones(20)
    for wrong, message in [
        (lambda: x.stft(8), "return_complex must be given"),
        (lambda: x.stft(8, 0, return_complex=True), "hop_length should be positive, got 0"),
        (lambda: x.stft(8, win_length=9, return_complex=True), "1 to n_fft = 8, got 9"),
        (lambda: x.stft(8, window=gf.ones(5), return_complex=True), r"the shape \[8\], got \[5\]"),
        (lambda: x.stft(30, center=False, return_complex=True), "20 samples are less than"),
        (lambda: x.stft(8, pad_mode="odd", return_complex=True), "pad_mode is one of constant"),
        (lambda: gf.ones(1, 1, 9).stft(4, return_complex=True), "1 or 2 dimensions, got 3"),
        (lambda: gf.ones(5, 4).istft(8), "expected a complex tensor"),
        (lambda: gf.ones(6, 4, dtype=gf.complex64).istft(8), "expected 5 frequencies"),
        (
            lambda: gf.ones(5, 4, dtype=gf.complex64).istft(8, 8, window=gf.zeros(8)),
            "some samples lie in no window",
        ),
    ]:
        with pytest.raises(gf.GraphFlowError, match=message):
            wrong()

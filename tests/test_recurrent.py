"""Recurrent layers and cells against NumPy in double precision and finite differences."""

import numpy as np
import pytest

import graphflow as gf
from graphflow import nn
from graphflow.nn.utils import rnn
from tests.front import agree, numbers
from tests.recurrent_oracle import cell, network

SEED = 6
rng = np.random.default_rng(SEED)
KINDS = {
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
    "projected": (nn.LSTM, {"proj_size": 2}),
}


@pytest.fixture(autouse=True)
def drawn_anew(monkeypatch):
    """Every test draws the same numbers, whatever ran before it in its process: in some
    orders all relus of a layer were off, and a parameter had no part in the loss."""
    monkeypatch.setitem(globals(), "rng", np.random.default_rng(SEED))


def made(name, **options):
    cls, own = KINDS[name]
    layer = cls(3, 4, dtype=gf.float64, **own, **options)
    with gf.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(gf.tensor(rng.normal(size=tuple(parameter.shape)) * 0.5))
    return layer


def states(name, count, batch):
    width = 2 if name == "projected" else 4
    return rng.normal(size=(count, batch, width)), rng.normal(size=(count, batch, 4))


def given(name, h, c):
    pair = gf.tensor(h), gf.tensor(c)
    return pair if KINDS[name][0] is nn.LSTM else pair[0]


def oracle(name, layer, sequences, h, c):
    """What every sequence alone gives: outputs, h [count, batch, width], c."""
    weights = {k: v.detach().numpy() for k, v in layer.named_parameters()}
    kind = "lstm" if name == "projected" else name
    directions = 2 if layer.bidirectional else 1
    results = [
        network(kind, weights, layer.num_layers, directions, s, h[:, i], c[:, i])
        for i, s in enumerate(sequences)
    ]
    outs, hs, cs = zip(*results, strict=True)
    return outs, np.stack(hs, 1), np.stack(cs, 1)


def close(found, expected):
    assert found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, False), (2, True)])
def test_layers_equal_numpy(name, bias, layers, both):
    layer = made(name, num_layers=layers, bidirectional=both, bias=bias)
    x = rng.normal(size=(5, 3, 3))
    count = layers * (2 if both else 1)
    h, c = states(name, count, 3)
    outs, hs, cs = oracle(name, layer, x.transpose(1, 0, 2), h, c)
    out, last = layer(gf.tensor(x), given(name, h, c))
    close(out, np.stack(outs, 1))
    pair = last if isinstance(last, tuple) else (last,)
    for found, expected in zip(pair, (hs, cs), strict=False):
        close(found, expected)


@pytest.mark.parametrize("name", KINDS)
def test_batch_first_no_batch_and_no_state(name):
    layer = made(name, num_layers=2, bidirectional=True)
    x = gf.tensor(rng.normal(size=(5, 1, 3)))
    expected = numbers(layer(x))
    zero = np.zeros((4, 1, 2 if name == "projected" else 4)), np.zeros((4, 1, 4))
    alone = numbers(layer(x[:, 0]))
    for a, b, c in zip(numbers(layer(x, given(name, *zero))), expected, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
        np.testing.assert_allclose(c, b[:, 0], rtol=1e-12)
    layer.batch_first = True
    swapped = numbers(layer(x.transpose(0, 1)))
    np.testing.assert_allclose(swapped[0], expected[0].transpose(1, 0, 2), rtol=1e-12)
    np.testing.assert_allclose(swapped[1], expected[1], rtol=1e-12)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("lengths", [(2, 5, 3, 1), (3, 3, 3, 3), (1, 1, 1, 4)])
def test_packed_sequences_equal_each_alone(name, lengths):
    layer = made(name, num_layers=2, bidirectional=True)
    sequences = [rng.normal(size=(n, 3)) for n in lengths]
    h, c = states(name, 4, 4)
    outs, hs, _ = oracle(name, layer, sequences, h, c)
    packed = rnn.pack_sequence([gf.tensor(s) for s in sequences], enforce_sorted=False)
    out, last = layer(packed, given(name, h, c))
    for found, expected in zip(rnn.unpack_sequence(out), outs, strict=True):
        close(found, expected)
    close(last[0] if isinstance(last, tuple) else last, hs)
    padded, sizes = rnn.pad_packed_sequence(out, batch_first=True, padding_value=7.0)
    assert sizes.tolist() == list(lengths)
    for i, n in enumerate(lengths):
        close(padded[i, :n], outs[i])
        assert (padded[i, n:] == 7).all()


@pytest.mark.parametrize("name", ["tanh", "relu", "gru", "lstm"])
@pytest.mark.parametrize("bias", [True, False])
def test_cells_equal_numpy(name, bias):
    cls = {"gru": nn.GRUCell, "lstm": nn.LSTMCell}.get(name, nn.RNNCell)
    own = {"nonlinearity": name} if cls is nn.RNNCell else {}
    layer = cls(3, 4, bias=bias, dtype=gf.float64, **own)
    weights = {k: v.detach().numpy() for k, v in layer.named_parameters()}
    x, (h, c) = rng.normal(size=(2, 3)), rng.normal(size=(2, 2, 4))
    expected = [cell(name, weights, x[i], h[i], c[i]) for i in range(2)]
    state = (gf.tensor(h), gf.tensor(c)) if name == "lstm" else gf.tensor(h)
    found = layer(gf.tensor(x), state)
    for part, value in enumerate(found if name == "lstm" else (found,)):
        close(value, np.stack([e[part] for e in expected]))
    alone = layer(gf.tensor(x[0]))
    zero, _ = cell(name, weights, x[0], np.zeros(4), np.zeros(4))
    close(alone[0] if name == "lstm" else alone, zero)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("lengths", [None, (4, 2, 1)])
def test_gradients_equal_differences(name, lengths):
    layer = made(name, num_layers=2, bidirectional=True)
    x = gf.tensor(rng.normal(size=(4, 3, 3)), requires_grad=True)
    mix = gf.tensor(rng.normal(size=(4, 3, 4 if name == "projected" else 8)))

    def loss():
        if lengths is None:
            return (layer(x)[0] * mix).sum()
        packed = rnn.pack_padded_sequence(x, lengths)
        return (rnn.pad_packed_sequence(layer(packed)[0])[0] * mix).sum()

    loss().backward()
    varied = [x, *layer.parameters()]
    ways = [gf.tensor(rng.normal(size=tuple(v.shape))) for v in varied]
    exact = sum(float((v.grad * way).sum()) for v, way in zip(varied, ways, strict=True))

    def moved(by):
        with gf.no_grad():
            for value, way in zip(varied, ways, strict=True):
                value.add_(by * way)
            return float(loss())

    ahead = moved(1e-6)
    assert exact == pytest.approx((ahead - moved(-2e-6)) / 2e-6, rel=1e-5)
    assert all(v.grad.abs().max() > 0 for v in varied), "every one has a part in it"


@pytest.mark.parametrize(
    ("name", "both", "lengths"),
    [("gru", False, (3, 1, 1)), ("lstm", True, None)],
)
def test_training_steps_agree_compiled(name, both, lengths):
    x = gf.tensor(rng.normal(size=(3, 3, 3)).astype(np.float32))
    cls, own = KINDS[name]

    def program(jit):
        layer = cls(3, 4, bidirectional=both, **own)
        head = nn.Linear(8 if both else 4, 2)
        optimizer = gf.optim.SGD([*layer.parameters(), *head.parameters()], lr=0.1)

        @jit
        def step(x):
            optimizer.zero_grad()
            if lengths is None:
                out, _ = layer(x)
            else:
                packed = rnn.pack_padded_sequence(x, lengths)
                out, _ = rnn.pad_packed_sequence(layer(packed)[0])
            loss = head(out).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        return [step(x) for _ in range(3)] + list(layer.parameters())

    agree(program, rtol=1e-5)


def test_dropout_between_layers_only_while_training():
    layer = made("lstm", num_layers=2, dropout=0.5)
    x = gf.tensor(rng.normal(size=(4, 2, 3)))
    gf.manual_seed(0)
    first = numbers(layer(x))[0]
    assert not np.array_equal(first, numbers(layer(x))[0])
    layer.eval()
    assert np.array_equal(numbers(layer(x))[0], numbers(layer(x))[0])
    layer.train()
    layer.dropout = 1.0  # nothing reaches the second layer
    assert np.array_equal(numbers(layer(x))[0], numbers(layer(x * 3))[0])


def test_names_shapes_and_printing_are_pytorchs():
    layer = nn.LSTM(3, 4, 2, proj_size=2, bidirectional=True)
    shapes = {k: tuple(v.shape) for k, v in layer.named_parameters()}
    assert list(shapes)[:6] == [
        "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0",
        "weight_ih_l0_reverse",
    ]  # fmt: skip
    assert shapes["weight_ih_l1_reverse"] == (16, 4) and shapes["weight_hr_l1"] == (2, 4)
    assert all(float(p.abs().max()) <= 0.5 for p in layer.parameters())
    assert repr(layer) == "LSTM(3, 4, proj_size=2, num_layers=2, bidirectional=True)"
    assert repr(nn.RNN(3, 4, 2, "relu", dropout=0.5, bias=False)) == (
        "RNN(3, 4, num_layers=2, bias=False, dropout=0.5)"
    )
    assert repr(nn.RNNCell(3, 4, False, "relu")) == "RNNCell(3, 4, bias=False, nonlinearity=relu)"
    assert [len(ws) for ws in nn.GRU(3, 4, 2).all_weights] == [4, 4]


LSTM, RNN = nn.LSTM(3, 4), nn.RNN(3, 4)
X = gf.zeros(5, 2, 3)
WRONG = [
    (lambda: LSTM(gf.zeros(5, 2, 7)), RuntimeError, "Expected 3, got 7"),
    (lambda: LSTM(gf.zeros(5)), ValueError, "LSTM: Expected input to be 2D or 3D, got 1D"),
    (lambda: LSTM(X.double()), ValueError, "does not match weight dtype"),
    (lambda: RNN(X, gf.zeros(1, 3, 4)), RuntimeError, r"Expected hidden size \(1, 2, 4\)"),
    (lambda: RNN(X, gf.zeros(1, 4)), RuntimeError, "should also be 3-D but got 2-D"),
    (lambda: RNN(X[:, 0], gf.zeros(1, 1, 4)), RuntimeError, "should also be 2-D but got 3-D"),
    (lambda: LSTM(X, (gf.zeros(1, 2, 4), gf.zeros(1, 3, 4))), RuntimeError, r"hidden\[1\] size"),
    (lambda: RNN(gf.zeros(0, 2, 3)), RuntimeError, "sequence length to be larger than 0"),
    (lambda: nn.LSTM(3, 0), ValueError, "hidden_size must be greater than zero"),
    (lambda: nn.LSTM(3, 4.0), TypeError, "hidden_size should be of type int, got: float"),
    (lambda: nn.LSTM(3, 4, batch_first=1), TypeError, "batch_first should be of type bool"),
    (lambda: nn.LSTM(3, 4, proj_size=4), ValueError, "smaller than hidden_size"),
    (lambda: nn.RNN(3, 4, nonlinearity="x"), ValueError, "Unknown nonlinearity 'x'"),
    (lambda: nn.GRUCell(3, 4)(gf.zeros(2, 5)), RuntimeError, "got 5 expected 3"),
    (lambda: nn.GRUCell(3, 4)(gf.zeros(2, 3), gf.zeros(3, 4)), RuntimeError, "hidden0"),
    (lambda: nn.LSTMCell(3, 4)(gf.zeros(2, 3), gf.zeros(2, 4)), TypeError, "pair of tensors"),
    (lambda: rnn.pack_padded_sequence(X, [3, 0]), RuntimeError, "greater than 0"),
    (lambda: rnn.pack_padded_sequence(X, [3, 5]), RuntimeError, "decreasing order"),
    (lambda: rnn.pack_padded_sequence(X, [3]), RuntimeError, "equal to the batch size 2"),
    (lambda: rnn.pack_padded_sequence(X, [6, 3]), RuntimeError, "a length is 6"),
    (lambda: gf.compile(lambda n: rnn.pack_padded_sequence(X, n).data)(gf.tensor([3, 2])),
     gf.TraceError, "hand it a list"),
    (lambda: rnn.pad_sequence([]), RuntimeError, "empty list"),
    (lambda: rnn.pad_sequence([gf.zeros(2, 3), gf.zeros(2, 4)]), RuntimeError, "dimension 0"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_does_not_fit_is_an_error(number):
    call, error, message = WRONG[number]
    with pytest.raises(error, match=message):
        call()


def test_packing_pads_and_orders():
    rows = [gf.arange(n) + 10 * n for n in (2, 4, 1)]
    packed = rnn.pack_sequence(rows, enforce_sorted=False)
    assert packed.data.tolist() == [40, 20, 10, 41, 21, 42, 43]
    assert packed.batch_sizes.tolist() == [3, 2, 1, 1]
    assert packed.sorted_indices.tolist() == [1, 0, 2]
    assert [r.tolist() for r in rnn.unpack_sequence(packed)] == [r.tolist() for r in rows]
    padded, lengths = rnn.pad_packed_sequence(packed, True, -1.0, total_length=5)
    assert padded.tolist()[2] == [10, -1, -1, -1, -1] and lengths.tolist() == [2, 4, 1]
    left = rnn.pad_sequence(rows, batch_first=True, padding_side="left")
    assert left.tolist() == [[0, 0, 20, 21], [40, 41, 42, 43], [0, 0, 0, 10]]
    assert rnn.unpad_sequence(padded, lengths, True)[0].tolist() == [20, 21]
    assert rnn.invert_permutation(gf.tensor([2, 0, 1])).tolist() == [1, 2, 0]
    assert packed.to(gf.float32).data.dtype is gf.float32
    again = rnn.PackedSequence(packed.data, packed.batch_sizes, packed.sorted_indices)
    assert again.sizes() == (3, 2, 1, 1) and again.unsorted_indices.tolist() == [1, 0, 2]


def test_a_packed_argument_of_compiled_code_says_where_to_pack():
    layer, packed = nn.GRU(3, 4), rnn.pack_padded_sequence(gf.zeros(5, 2, 3), [5, 2])
    with pytest.raises(gf.TraceError, match="pack inside with the lengths"):
        gf.compile(lambda p: layer(p)[0].data)(packed)


@pytest.mark.parametrize(("kind", "calls"), [("RNN", 1), ("LSTM", 2), ("GRU", 2)])
def test_a_step_is_a_product_and_one_kernel(kind: str, calls: int) -> None:
    """The cell of an RNN is the product's epilogue; the others need all of a product."""
    from graphflow.codegen.schedule import Loop

    model = getattr(nn, kind)(3, 5)

    @gf.compile
    def forward(x: gf.Tensor) -> gf.Tensor:
        with gf.no_grad():
            return model(x)[0]

    forward(gf.ones(4, 2, 3))
    steps = forward.latest.program.schedule.steps
    assert [len(step.body) for step in steps if isinstance(step, Loop)] == [calls]

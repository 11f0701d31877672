"""Broken and malicious files: one clear error, no code run, no memory taken for a lie."""

import io
import json
import os
import pathlib
import pickle
import struct
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest

import graphflow as gf

CHECKPOINTS = pathlib.Path(__file__).parent / "checkpoints"
LEAST = 4_000_000  # bytes: what loading a small file may take at most, whatever it claims


def refused(data: bytes, match: str = ".") -> None:
    """Loading ``data`` is a GraphFlowError that names the file, and takes no memory."""
    stream = io.BytesIO(data)
    stream.name = "evil.pt"
    tracemalloc.start()
    try:
        with pytest.raises(gf.GraphFlowError, match=match) as caught:
            gf.load(stream)
        assert tracemalloc.get_traced_memory()[1] < LEAST + 20 * len(data)
    finally:
        tracemalloc.stop()
    assert "evil.pt" in str(caught.value)


# ---- safetensors ----------------------------------------------------------------------------


def tensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HUGE = [2**40, 2**40]
SAFETENSORS = {
    "empty": (b"", "header"),
    "short": (b"\x01\0\0", "header"),
    "long header": (tensors({}, length=2**63), "promises"),
    "no json": (tensors(b"{nonsense"), "cannot be read"),
    "deep json": (tensors(b'{"a":' * 100_000), "cannot be read"),
    "no table": (tensors([1]), "not a table"),
    "twins": (tensors(b'{"a":{},"a":{}}'), "twice"),
    "incomplete": (tensors({"a": {"dtype": "F32"}}), "incomplete"),
    "dtype": (tensors({"a": entry("F8_E4M3")}, bytes(8)), "F8_E4M3"),
    "shape": (tensors({"a": entry(shape=[-2])}, bytes(8)), "sensible"),
    "fraction": (tensors({"a": entry(shape=[2.0])}, bytes(8)), "sensible"),
    "no list": (tensors({"a": entry(shape="ab")}, bytes(8)), "sensible"),
    "lie": (tensors({"a": entry(shape=HUGE)}, bytes(8)), "does not fill"),
    "big lie": (tensors({"a": entry(shape=HUGE, offsets=(0, 2**82))}, bytes(8)), "sensible"),
    "beyond": (tensors({"a": entry(shape=[2**30], offsets=(0, 2**32))}, bytes(8)), "promises"),
    "many": (tensors({"a": entry(shape=[0] * 100, offsets=(0, 0))}), "sensible"),
    "overlap": (tensors({"a": entry(), "b": entry()}, bytes(8)), "overlap"),
    "gap": (tensors({"a": entry(offsets=(8, 16))}, bytes(16)), "gaps"),
    "rest": (tensors({"a": entry()}, bytes(9)), "promises"),
    "metadata": (tensors({"__metadata__": {"a": 1}}), "metadata"),
    "structure": (tensors({"__metadata__": {"graphflow": "{"}}), "structure"),
    "unknown": (tensors({"__metadata__": {"graphflow": '{"kind":"x","items":[]}'}}), "structure"),
    "missing": (
        tensors({"__metadata__": {"graphflow": '{"kind":"tensor","name":"a"}'}}),
        "structure",
    ),
}


@pytest.mark.parametrize("case", sorted(SAFETENSORS))
def test_safetensors(case: str) -> None:
    data, message = SAFETENSORS[case]
    refused(data, message)


def saved(format: str) -> bytes:
    stream = io.BytesIO()
    value = {"a": gf.arange(50), "b": [1.5, "x", (gf.ones(3, 2), None)], "c": b"abc"}
    gf.save(value, stream, format=format)
    return stream.getvalue()


WHOLE = {
    "safetensors": saved("safetensors"),
    "pytorch": saved("pytorch"),
    "theirs": (CHECKPOINTS / "pytorch.pt").read_bytes(),
    "legacy": (CHECKPOINTS / "pytorch_legacy.pt").read_bytes(),
}


@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_a_truncated_file(kind: str) -> None:
    data = WHOLE[kind]
    for cut in sorted({*range(0, 40, 3), *range(0, len(data), len(data) // 30), len(data) - 1}):
        refused(data[:cut])


@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_flipped_bytes_load_or_are_refused(kind: str) -> None:
    seed = 20
    print("seed", seed)
    rng = np.random.default_rng(seed)
    data = WHOLE[kind]
    for _ in range(60):
        broken = bytearray(data)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            broken[position] = rng.integers(0, 256)
        tracemalloc.start()
        try:
            gf.load(io.BytesIO(bytes(broken)))
        except gf.GraphFlowError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < LEAST + (64 << 20)


# ---- pickles --------------------------------------------------------------------------------


def archive(pickled: bytes, compression: int = zipfile.ZIP_STORED, **records: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as made:
        made.writestr("evil/data.pkl", pickled)
        for name, data in records.items():
            made.writestr(f"evil/{name.replace('_', '/')}", data)
    return stream.getvalue()


def tensor(key: str, count: int, offset: int, size: Any, stride: Any) -> bytes:
    """The pickle of a float32 tensor, as PyTorch writes it."""
    storage = (
        b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + key.encode()
        + b"X\x03\0\0\0cpu\x8a\x08" + struct.pack("<q", count) + b"tQ"
    )  # fmt: skip
    numbers = [b"\x8a\x08" + struct.pack("<q", offset)]
    for extents in (size, stride):
        numbers.append(b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", e) for e in extents) + b"t")
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + storage + b"".join(numbers) + b"\x89NtR."
    )


class Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("call", [(os.system, "touch pwned"), (eval, "1/0"), (getattr, int, "x")])
def test_code_is_not_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, protocol: int, call: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(archive(pickle.dumps({"a": Evil(*call)}, protocol)), r"only running code could load")
    assert os.listdir(tmp_path) == []
    refused(pickle.dumps(Evil(*call), 2), "plain pickle|in another format")


TERA = b"\x8a\x08" + struct.pack("<q", 2**40)
PICKLES = {
    "instance": b"(S'ls'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nS'ls'\no.",
    "extension": b"\x80\x02\x82\x01.",
    "call of data": b"\x80\x02}(X\x01\0\0\0a\x85R.",
    "no stack": b"\x80\x02R.",
    "no mark": b"\x80\x02u.",
    "no memo": b"\x80\x02h\x07.",
    "build": b"\x80\x02](K\x01eb.",
    "reference": b"\x80\x02K\x01Q.",
    "big memo": b"\x80\x02Nr\xff\xff\xff\xff0.",
    "big bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"ab.",
    "big text": b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"ab.",
    "big number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"ab.",
    "big bytearray": b"\x80\x02cbuiltins\nbytearray\n" + TERA + b"\x85R.",
    "big set": b"\x80\x02cbuiltins\nset\n" + TERA + b"\x85R.",
    "unhashable": b"\x80\x02}](K\x01eK\x01s.",
    "not ended": b"\x80\x02K\x01",
    "long line": b"\x80\x02c" + b"a" * 200_000,
    "array of objects": b"\x80\x02cnumpy\ndtype\nX\x01\0\0\0O\x85R.",
    "array lie": (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R"
        b"(K\x01" + TERA + b"\x85cnumpy\ndtype\n"
        b"X\x02\0\0\0f8\x85R\x89X\x01\0\0\0atb."
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(PICKLES))
def test_pickles_that_are_no_data(case: str) -> None:
    refused(archive(PICKLES[case]))


TENSORS = {
    "missing": (tensor("9", 1, 0, [1], [1]), "cannot be read"),
    "small record": (tensor("0", 5, 0, [5], [1]), "16 bytes"),
    "large tensor": (tensor("0", 4, 0, [5], [1]), "larger than its storage"),
    "large offset": (tensor("0", 4, 4, [1], [1]), "larger than its storage"),
    "large stride": (tensor("0", 4, 0, [2], [2**40]), "larger than its storage"),
    "negative": (tensor("0", 4, 0, [-1], [1]), "no size"),
    "negative offset": (tensor("0", 4, -1, [1], [1]), "no size"),
    "negative stride": (tensor("0", 4, 3, [2], [-1]), "no size"),
    "huge storage": (tensor("0", 2**40, 0, [2**40], [1]), "16 bytes"),
    "expanded": (tensor("0", 4, 0, [2**20, 2**20], [0, 0]), "far more memory"),
    "many dimensions": (tensor("0", 4, 0, [1] * 100, [1] * 100), "cannot be read|damaged"),
    "ragged": (tensor("0", 4, 0, [1, 1], [1]), "damaged"),
}


@pytest.mark.parametrize("case", sorted(TENSORS))
def test_tensors_that_cannot_be(case: str) -> None:
    pickled, message = TENSORS[case]
    refused(archive(pickled, data_0=bytes(16)), message)


def test_the_tensor_these_cases_break_is_fine() -> None:
    good = archive(tensor("0", 4, 1, [3], [1]), data_0=np.arange(4, dtype=np.float32).tobytes())
    assert gf.load(io.BytesIO(good)).tolist() == [1, 2, 3]


def test_zip_bombs() -> None:
    pickled = tensor("0", 2**22, 0, [2**22], [1])
    refused(archive(pickled, zipfile.ZIP_DEFLATED, data_0=bytes(2**24)), "compressed")
    honest = archive(tensor("0", 4, 0, [4], [1]), data_0=bytes(16))
    # The sizes that the directory gives for the storage, made a gigabyte.
    lying = honest.replace(struct.pack("<II", 16, 16), struct.pack("<II", 2**30, 2**30))
    assert lying != honest
    refused(lying)


def test_a_changed_byte_of_a_storage_is_noticed() -> None:
    data = np.arange(4, dtype=np.float32).tobytes()
    broken = archive(tensor("0", 4, 0, [4], [1]), data_0=data).replace(data, data[::-1])
    refused(broken, "CRC")


def test_other_archives() -> None:
    refused(archive(b"\x80\x02N.", constants_pkl=b"").replace(b"constants/pkl", b"constants.pkl"),
            "TorchScript")  # fmt: skip
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("a.txt", "x")
    refused(stream.getvalue(), r"no data\.pkl")

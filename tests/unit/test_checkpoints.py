"""Checkpoints by their headers: exact where they are whole, refused in one line where they lie."""

import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from capacity.errors import CapacityError, FileFormatError
from capacity.importers.graphs.checkpoint import read_checkpoint

MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def weights():
    network = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.LSTM(20, 7), torch.nn.BatchNorm1d(3))
    return network.state_dict() | {
        "half": torch.randn(3, 5).half(),
        "brain": torch.randn(7).bfloat16(),
        "empty": torch.zeros(0, 4),
    }


def gguf(tensors, metadata=(), version=3, alignment=32):
    """A GGUF file as llama.cpp writes it. tensors: (name, shape, type, bytes)."""

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, kind, value in metadata:
        out += text(key) + struct.pack("<I", kind) + value
    offset = 0
    for name, shape, kind, size in tensors:
        out += (
            text(name)
            + struct.pack("<I", len(shape))
            + struct.pack(f"<{len(shape)}Q", *shape)
            + struct.pack("<IQ", kind, offset)
        )
        offset += -(-size // alignment) * alignment
    out += b"\0" * (-len(out) % alignment)
    return out + b"\0" * offset


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A real file of each format, by name."""
    folder = tmp_path_factory.mktemp("checkpoints")
    state = weights()
    save_file(state, folder / "a.safetensors")
    torch.save(state, folder / "a.pt")
    text = struct.pack("<Q", 5) + b"llama"
    words = struct.pack("<IQ", 8, 2) + text + text
    rows = [
        ("token_embd.weight", (64, 100), 2, 64 * 100 // 32 * 18),
        ("norm.weight", (64,), 0, 256),
        ("out", (256, 4), 14, 4 * 210),
    ]
    (folder / "a.gguf").write_bytes(
        gguf(rows, [("general.architecture", 8, text), ("tokens", 9, words), ("n", 4, struct.pack("<I", 7))])
    )
    return {name: (folder / name).read_bytes() for name in ("a.safetensors", "a.pt", "a.gguf")}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_every_tensor_is_what_torch_saved(tmp_path, name, files):
    (tmp_path / name).write_bytes(files[name])
    found = read_checkpoint(str(tmp_path / name))
    wanted = weights()
    assert {one.name: one.shape for one in found.tensors} == {key: tuple(value.shape) for key, value in wanted.items()}
    assert {one.name: one.bytes for one in found.tensors} == {key: value.nbytes for key, value in wanted.items()}
    assert {one.name: one.dtype for one in found.tensors}["brain"] == "BF16"


def test_gguf_blocks_are_counted_to_the_byte(tmp_path, files):
    (tmp_path / "a.gguf").write_bytes(files["a.gguf"])
    found = read_checkpoint(str(tmp_path / "a.gguf"))
    assert [(one.dtype, one.shape, one.bytes) for one in found.tensors] == [
        ("Q4_0", (100, 64), 3600.0),
        ("F32", (64,), 256.0),
        ("Q6_K", (4, 256), 840.0),
    ]
    assert found.metadata["general.architecture"] == "llama"
    assert found.metadata["n"] == 7


def test_a_training_checkpoint_with_optimizer_and_module_runs_nothing(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    layer = torch.nn.Linear(4, 3)
    torch.save(
        {"model": layer.state_dict(), "epoch": 3, "nested": [{"x": torch.ones(2)}], "trap": Trap()}, tmp_path / "t.pt"
    )
    found = read_checkpoint(str(tmp_path / "t.pt"))
    assert {one.name: one.elements for one in found.tensors} == {"model.weight": 12, "model.bias": 3, "nested.0.x": 2}


def test_shards_are_joined_by_their_index(tmp_path):
    parts = {"one.safetensors": {"a": torch.zeros(2, 3)}, "two.safetensors": {"b": torch.zeros(4).half()}}
    for name, part in parts.items():
        save_file(part, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    for place in (index, tmp_path):
        found = read_checkpoint(str(place))
        assert (found.bytes, len(found.files)) == (32.0, 2)
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "lost": "two.safetensors"}}))
    with pytest.raises(FileFormatError, match="differ"):
        read_checkpoint(str(index))
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(FileFormatError, match="beside their index"):
        read_checkpoint(str(index))


def header(document, data=b""):
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text + data


def zipped(entries, packed=False):
    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)

    return write


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = {
    "a length beyond the file": struct.pack("<Q", 2**40) + b"{}",
    "a length beyond any integer": b"\xff" * 8 + b"{}",
    "nothing": b"",
    "three bytes": b"abc",
    "recursion": header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "no object": header(b"[1, 2]"),
    "a name twice": header(b'{"a":' + json.dumps(F32).encode() + b',"a":' + json.dumps(F32).encode() + b"}", b"\0" * 8),
    "an offset beyond the data": header({"a": F32 | {"data_offsets": [0, 2**50]}}, b"\0" * 8),
    "a negative offset": header({"a": F32 | {"data_offsets": [-8, 0]}}, b"\0" * 8),
    "a shape that lies": header({"a": F32 | {"shape": [2**40, 2**40]}}, b"\0" * 8),
    "tensors that overlap": header({"a": F32, "b": F32}, b"\0" * 8),
    "bytes that belong to none": header({"a": F32}, b"\0" * 16),
    "an unknown format": header({"a": F32 | {"dtype": "X1"}}, b"\0" * 8),
    "no shape": header({"a": {"dtype": "F32"}}, b"\0" * 8),
    "true for a number": header({"a": F32 | {"shape": [True]}}, b"\0" * 8),
    "a million tensors promised": b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
    "a string as long as the sea": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62),
    "an array of arrays of arrays": gguf([], [("x", 9, b"".join(struct.pack("<IQ", 9, 1) for _ in range(50)))]),
    "an array longer than the file": gguf([], [("x", 9, struct.pack("<IQ", 8, 2**61))]),
    "a version nobody wrote": gguf([], version=77),
    "a tensor outside the file": gguf([("x", (2**30, 2**30), 0, 0)]),
    "an unknown block": gguf([("x", (32,), 99, 32)]),
    "half a block": gguf([("x", (33,), 2, 36)]),
    "a bare pickle": pickle.dumps({"a": 1}),
    "a zip of nothing": zipped({}),
    "a zip bomb": zipped({"archive/data.pkl": b"\x80\x02}.", "archive/data/0": b"\0" * 50_000_000}, packed=True),
    "a pickle that never stops": zipped({"archive/data.pkl": b"\x80\x02}"}),
    "a pickle that pops too much": zipped({"archive/data.pkl": b"\x80\x0200000000."}),
    "a pickle with two roots": zipped({"a/data.pkl": b"\x80\x02}.", "b/data.pkl": b"\x80\x02}."}),
    "an odd opcode": zipped({"archive/data.pkl": b"\x80\x02\xff."}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_line(tmp_path, name):
    file = tmp_path / "hostile"
    made = HOSTILE[name]
    if callable(made):
        made(file)
    else:
        file.write_bytes(made)
    with pytest.raises(FileFormatError) as told:
        read_checkpoint(str(file))
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500


def test_a_gigabyte_of_header_is_refused_unread(tmp_path):
    file = tmp_path / "huge.safetensors"
    with file.open("wb") as out:
        out.write(struct.pack("<Q", 2**30))
        out.truncate(2**30 + 100)  # sparse: takes no room
    with pytest.raises(FileFormatError, match="more than safetensors allows"):
        read_checkpoint(str(file))


def test_a_storage_that_lies_is_found(tmp_path, files):
    path = tmp_path / "lie.pt"
    path.write_bytes(files["a.pt"])
    with zipfile.ZipFile(path) as archive:
        entries = {one: archive.read(one) for one in archive.namelist()}
    grown = {name: data + b"\0" * 8 if name.endswith("data/0") else data for name, data in entries.items()}
    zipped(grown)(path)
    with pytest.raises(FileFormatError, match="does not fit its storage"):
        read_checkpoint(str(path))


def attempt(path, data):
    """Read a damaged file: it is right or refused in one line, and nothing else happens."""
    path.write_bytes(data)
    try:
        found = read_checkpoint(str(path))
    except CapacityError as error:
        assert "\n" not in str(error)
        return False
    assert all(one.bytes >= 0.0 for one in found.tensors)
    assert found.bytes <= found.file_bytes * max(len(found.tensors), 1)
    return True


@MANY
@given(
    data=st.binary(max_size=400),
    head=st.sampled_from([b"", b"GGUF\x03\0\0\0", b"PK\x03\x04", b"\x80\x02", struct.pack("<Q", 40) + b"{"]),
)
def test_bytes_of_any_kind_are_read_or_refused(tmp_path, data, head):
    attempt(tmp_path / "any", head + data)


@MANY
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(["a.safetensors", "a.pt", "a.gguf"]),
    flips=st.integers(1, 12),
    cut=st.booleans(),
)
def test_damaged_real_files_are_read_or_refused(tmp_path, seed, name, flips, cut, files):
    random = np.random.default_rng(seed)
    data = bytearray(files[name])
    # Where sizes are written: the first bytes, and the last of an archive.
    near = min(len(data), 1500)
    for _ in range(flips):
        at = int(random.integers(0, near)) if random.random() < 0.7 else len(data) - 1 - int(random.integers(0, near))
        data[at] = int(random.integers(0, 256))
    attempt(tmp_path / name, bytes(data[: int(random.integers(0, len(data)))] if cut else data))

"""Files that are broken, hostile or of another model: one sentence, and nothing is written."""

import json
import pickle
import struct
import time
import tracemalloc
import zipfile

import msgpack
import numpy as np
import pytest
from weight_files import tensors_of, written

from augjax import check, exchange


def refused(tmp_path, path, error=check.DataError, source="repdistiller", model="resnet8",
            data="digits"):
    """The sentence; the folder holds what it held."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error) as caught:
        exchange.convert(source, model, path, data)
    assert sorted(tmp_path.rglob("*")) == before
    return str(caught.value)


def raw(path, header, body=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)
    return path


def float32(shape, start, stop):
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}


# --- safetensors ---------------------------------------------------------------------------------

HEADERS = {
    "nothing": (b"", b"", 0),
    "not json": (b"{abc}", b"", None),
    "a list": (b"[]", b"", None),
    "deep": (b"[" * 100_000, b"", None),
    "longer than the file": ({}, b"", 1 << 30),
    "longest of all": ({}, b"", (1 << 64) - 1),
    "overlapping": ({"a": float32([2], 0, 8), "b": float32([2], 4, 12)}, b"x" * 12, None),
    "the same": ({"a": float32([2], 0, 8), "b": float32([2], 0, 8)}, b"x" * 8, None),
    "beyond the end": ({"a": float32([4], 0, 16)}, b"x" * 8, None),
    "left over": ({"a": float32([2], 0, 8)}, b"x" * 12, None),
    "huge shape": ({"a": float32([1 << 40, 1 << 40], 0, 8)}, b"x" * 8, None),
    "wrong size": ({"a": float32([3], 0, 8)}, b"x" * 8, None),
    "negative": ({"a": float32([-2], 0, 8)}, b"x" * 8, None),
    "backwards": ({"a": float32([2], 8, 0)}, b"x" * 8, None),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_bad_header_is_refused_in_little_time_and_memory(tmp_path, kind):
    header, body, length = HEADERS[kind]
    path = raw(tmp_path / "w.safetensors", header, body, length)
    tracemalloc.start()
    began = time.monotonic()
    sentence = refused(tmp_path, path)
    assert time.monotonic() - began < 20
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert "w.safetensors: expected a" in sentence and "safetensors file" in sentence


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = written(tmp_path / "w.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "safetensors file" in refused(tmp_path, path)


def test_many_tensors_of_strange_names_cost_little_and_are_shown_plainly(tmp_path):
    many = {f"\x1b[31m{k}\n": float32([0], 0, 0) for k in range(50_000)}
    began = time.monotonic()
    sentence = refused(tmp_path, raw(tmp_path / "w.safetensors", many))
    assert time.monotonic() - began < 20
    assert len(sentence.splitlines()) == 23 and sentence.replace("\n", "").isprintable()


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "nothing there" in refused(tmp_path, tmp_path / "none.safetensors")
    assert "a folder" in refused(tmp_path, tmp_path)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path / "w.safetensors")

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    assert "a file that can be read, got [Errno 13]" in refused(tmp_path, path)


# --- tensors -------------------------------------------------------------------------------------


def table(sentence):
    """[(tensor, expected, came)] of a refusal."""
    lines = [line.split("  ") for line in sentence.splitlines()[1:]]
    return [tuple(cell.strip() for cell in line if cell.strip()) for line in lines][1:]


def test_missing_extra_and_misshapen_tensors_are_a_table(tmp_path):
    tensors = tensors_of()
    del tensors["layer2.0.conv2.weight"]
    tensors["layer4.0.conv1.weight"] = np.zeros((2, 3), np.float32)
    tensors["bn1.running_var"] = np.ones(17, np.float32)
    sentence = refused(tmp_path, written(tmp_path / "w.safetensors", tensors))
    assert "expected the tensors of repdistiller's resnet8, got 3 that differ" in sentence
    assert table(sentence) == [
        ("bn1.running_var", "float32 [16]", "float32 [17]"),
        ("layer2.0.conv2.weight", "float32 [32, 32, 3, 3]", "missing"),
        ("layer4.0.conv1.weight", "nothing of this name", "float32 [2, 3]"),
    ]


def test_the_weights_of_another_model_are_refused(tmp_path):
    path = written(tmp_path / "w.safetensors", tensors_of("wrn_16_1"))
    sentence = refused(tmp_path, path)
    assert "name the model that it is of" in sentence
    assert len(sentence.splitlines()) == 1 + 1 + 20 + 1 and "more" in sentence.splitlines()[-1]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float64, bool])
def test_only_types_that_are_exact_in_float32_are_taken(tmp_path, dtype):
    tensors = tensors_of()
    tensors["fc.bias"] = tensors["fc.bias"].astype(dtype)
    assert table(refused(tmp_path, written(tmp_path / "w.safetensors", tensors)))[0][0] == "fc.bias"


def test_types_that_numpy_does_not_know_are_a_row(tmp_path):
    path = raw(tmp_path / "w.safetensors",
               {"fc.bias": {"dtype": "F8_E4M3", "shape": [10], "data_offsets": [0, 10]}}, b"x" * 10)
    rows = table(refused(tmp_path, path))
    assert ("fc.bias", "float32 [10]", "F8_E4M3 [10]") in rows


def test_half_precision_is_widened_exactly(tmp_path):
    tensors = {name: array.astype(np.float16) for name, array in tensors_of().items()}
    converted = exchange.convert("repdistiller", "resnet8",
                                 written(tmp_path / "w.safetensors", tensors), "digits")
    bias = converted.params["head"]["bias"]
    assert bias.dtype == np.float32
    np.testing.assert_array_equal(bias, tensors["fc.bias"].astype(np.float32))


@pytest.mark.parametrize("value, came", [(np.nan, "1 of 10 are not"), (np.inf, "1 of 10 are not")])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value, came):
    tensors = tensors_of()
    tensors["fc.bias"][3] = value
    sentence = refused(tmp_path, written(tmp_path / "w.safetensors", tensors))
    assert table(sentence) == [("fc.bias", "finite numbers", came)]


def test_a_negative_variance_is_refused(tmp_path):
    tensors = tensors_of()
    tensors["bn1.running_var"][0] = -1
    sentence = refused(tmp_path, written(tmp_path / "w.safetensors", tensors))
    assert table(sentence) == [("bn1.running_var", "variances from 0 on", "-1.0")]


def test_the_classes_are_those_of_the_data_set(tmp_path):
    path = written(tmp_path / "w.safetensors")
    sentence = refused(tmp_path, path, data=None)
    assert "fc.weight: expected 100 classes, as cifar100 has, got 10" in sentence
    assert "--data" in sentence
    assert "'cifar100'" in refused(tmp_path, path, check.ConfigError, data="cifar1000")


def test_what_data_parallel_and_pytorch_add_is_left_out(tmp_path):
    tensors = tensors_of()
    wrapped = {f"module.{name}": array for name, array in tensors.items()}
    wrapped["module.bn1.num_batches_tracked"] = np.array(3)
    paths = [written(tmp_path / f"{k}.safetensors", each) for k, each in
             enumerate((tensors, wrapped))]
    plain, other = (exchange.convert("repdistiller", "resnet8", path, "digits") for path in paths)
    np.testing.assert_array_equal(plain.params["stem"]["kernel"], other.params["stem"]["kernel"])


# --- pickles -------------------------------------------------------------------------------------


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("kind", ["zip", "pickle", "pickle 5"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_pickle_is_never_opened_and_the_way_out_is_told(tmp_path, kind, name):
    mark, path = tmp_path / "mark", tmp_path / name
    harmful = pickle.dumps(Payload(mark), 5 if kind == "pickle 5" else 2)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", harmful)
    else:
        path.write_bytes(harmful)
    sentence = refused(tmp_path, path)
    for part in ("can run any program", "weights_only=True", "save_file", 'get("model"'):
        assert part in sentence
    assert not mark.exists()


@pytest.mark.parity
def test_the_way_out_works_on_a_checkpoint_of_repdistiller(tmp_path, monkeypatch):
    """{"epoch", "model", ...} of a net in DataParallel, saved by torch, by the sentence's words."""
    import torch

    tensors = tensors_of()
    state = {f"module.{name}": torch.from_numpy(array) for name, array in tensors.items()}
    torch.save({"epoch": 240, "model": state, "accuracy": torch.tensor(70.0)}, tmp_path / "w.pth")
    sentence = refused(tmp_path, tmp_path / "w.pth")
    code = "\n".join(line.strip() for line in sentence.splitlines() if line.startswith("    "))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    converted = exchange.convert("repdistiller", "resnet8", tmp_path / "w.safetensors", "digits")
    np.testing.assert_array_equal(converted.params["head"]["bias"], tensors["fc.bias"])


def test_a_safetensors_file_that_begins_like_a_pickle_is_read(tmp_path):
    """A header of 0x0280 bytes begins with the two bytes of a pickle of protocol 2."""
    header = json.dumps({"a": float32([1], 0, 4)}).encode()
    path = raw(tmp_path / "w.safetensors", header + b" " * (0x280 - len(header)), b"abcd")
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert "that differ" in refused(tmp_path, path)


# --- Flax's msgpack ------------------------------------------------------------------------------


def nested(depth, claim):
    """Lists in lists, each of which says that it holds `claim` more."""
    return (b"\xdd" + struct.pack(">I", claim)) * depth


def array(content):
    """A Flax checkpoint of one array, whose own content is given."""
    return msgpack.packb({"params": {"a": msgpack.ExtType(1, content)}})


@pytest.mark.parametrize("content", [
    b"", b"\xc1", b"\x80", b"\x93\x01", nested(400, 1 << 31), nested(400, 100_000) + b"x" * 100_000,
    array(msgpack.packb(((4,), "float32", b"abc"))), array(msgpack.packb(((1,), "O", b"12345678"))),
    array(msgpack.packb(((-1, -4), "int8", b"abcd"))), array(b"\xc1"),
    msgpack.packb([1, 2]), msgpack.packb({"params": {1: 2, "a": 3}}),
])
def test_broken_msgpack_is_refused(tmp_path, content):
    path = tmp_path / "checkpoint_1"
    path.write_bytes(content)
    tracemalloc.start()
    sentence = refused(tmp_path, path, source="flax", model="resnet50", data="imagenet2012")
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert "checkpoint_1" in sentence


def test_a_folder_that_orbax_did_not_write_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").write_bytes(b"x")
    sentence = refused(tmp_path, tmp_path / "folder", source="flax", model="resnet50",
                       data="imagenet2012")
    assert "that Orbax wrote" in sentence

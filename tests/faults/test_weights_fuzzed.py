"""Weights files with anything in them: each is read, or refused with a sentence and 3, in bounds.

A seeded mutator, so that CI sees the same files each time; `AUGJAX_FUZZ=N` makes N of each kind.
"""

import json
import os
from pathlib import Path
import random
import struct
import time
import tracemalloc

import msgpack
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from augjax import check, exchange, tree
from augjax.exchange import formats, weights
from exchange.weight_files import drawn, tensors_of, written

FILES = int(os.environ.get("AUGJAX_FUZZ", "60"))
SECONDS, BYTES = 5.0, 50e6  # that one file may cost
NUMBERS = (-1, 0, 1, 2, 7, 2**31, 2**53, 2**63, 2**64 - 1, -(2**63), 10**40, 1.5, 1e400, None, "8",
           True, [], [0], {})
NAMES = ("", "a", "__metadata__", "../../etc/passwd", "/dev/zero", "a/b", "module.", "\x00",
         "\x1b[2J", "x" * 10_000, "fc.bias", "\u00e9", "fc.bias ", "{0.__class__}", "%s%n", "con")
TYPES = ("F32", "F64", "F16", "BF16", "F8_E4M3", "I64", "BOOL", "C64", "U8", "", "float32", 3, None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    return written(tmp_path_factory.mktemp("whole") / "w.safetensors").read_bytes()


def framed(header: bytes, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def bent_bytes(whole: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, or put in another place; the header's more often."""
    content = bytearray(whole)
    for _ in range(draw.choice((1, 1, 2, 8))):
        start = draw.randrange(min(len(content), draw.choice((8, 64, 4000, len(content)))))
        kind = draw.choice(("flip", "set", "cut", "double", "insert", "tail"))
        if kind == "flip":
            content[start] ^= 1 << draw.randrange(8)
        elif kind == "set":
            content[start] = draw.choice((0, 255, 34, 44, 123, 125))
        elif kind == "cut":
            del content[start : start + draw.choice((1, 8, 1000))]
        elif kind == "double":
            content[start:start] = content[start : start + 100]
        elif kind == "insert":
            content[start:start] = draw.randbytes(draw.choice((1, 8, 100)))
        else:
            del content[start:]
        if not content:
            break
    return bytes(content)


def bent_header(whole: bytes, draw: random.Random) -> bytes:
    """The header's own words: names, types, shapes, ranges, double names, its length."""
    size = int.from_bytes(whole[:8], "little")
    header, body = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    for _ in range(draw.choice((1, 1, 3))):
        name = draw.choice([name for name in header if name != "__metadata__"])
        tensor, number = header[name], draw.choice(NUMBERS)
        kind = draw.choice(("shape", "shapes", "range", "type", "name", "field", "all", "swap"))
        if not isinstance(tensor, dict) or not {"shape", "data_offsets"} <= set(tensor):
            break
        if kind == "shape" and isinstance(tensor["shape"], list) and tensor["shape"]:
            tensor["shape"][draw.randrange(len(tensor["shape"]))] = number
        elif kind == "shapes":
            tensor["shape"] = draw.choice(([2**32, 2**32], [[1]], [0] * 9, [1] * 99, number))
        elif kind == "range" and isinstance(tensor["data_offsets"], list):
            tensor["data_offsets"][draw.randrange(2)] = number
        elif kind == "type":
            tensor["dtype"] = draw.choice(TYPES)
        elif kind == "name":
            header[draw.choice(NAMES)] = header.pop(name)
        elif kind == "field":
            tensor.pop(draw.choice(sorted(tensor)))
        elif kind == "all":
            header[name] = number
        else:
            other = draw.choice(list(header))
            header[name], header[other] = header[other], header[name]
    text = json.dumps(header)
    if draw.random() < 0.1:  # a name twice
        text = text[:-1] + "," + json.dumps(dict([draw.choice(list(header.items()))]))[1:]
    length = draw.choice((0, 1, 2**24, 2**31, 2**63, 2**64 - 1)) if draw.random() < 0.1 else None
    return framed(text.encode(), body, length)


def noise(whole: bytes, draw: random.Random) -> bytes:
    begun = draw.choice((b"", whole[:8], whole[:16], b"\x80\x02", b"PK\x03\x04", b"{"))
    return begun + draw.randbytes(draw.choice((0, 1, 7, 8, 9, 100, 4096)))


def tried(function, path: Path) -> str:
    """The sentence with which a file is refused, or ""; within bounds of time and memory."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        function(path)
        return ""
    except check.AugjaxError as error:
        assert error.exit_code == 3, error
        assert ": expected " in str(error) and ", got " in str(error), str(error)
        return str(error)
    finally:
        peak, took = tracemalloc.get_traced_memory()[1], time.monotonic() - began
        tracemalloc.stop()
        assert took < SECONDS and peak < BYTES, (took, peak)


def taken(path: Path) -> None:
    exchange.convert("repdistiller", "resnet8", path, "digits")


@pytest.mark.parametrize("bend", [bent_bytes, bent_header, noise])
def test_any_safetensors_file_is_read_or_refused(tmp_path, whole, bend):
    path, draw, refused = tmp_path / "w.safetensors", random.Random(bend.__name__), 0
    for _ in range(FILES):
        path.write_bytes(bend(whole, draw))
        refused += bool(tried(taken, path))
    assert refused > FILES / 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_what_is_read_is_what_the_file_says(tmp_path, whole):
    """An accepted file gives its own numbers: the reader below is safetensors' own."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(whole)
    converted, truth = exchange.convert("repdistiller", "resnet8", path, "digits"), load_file(path)
    np.testing.assert_array_equal(converted.params["head"]["bias"], truth["fc.bias"])
    np.testing.assert_array_equal(converted.params["head"]["kernel"], truth["fc.weight"].T)


def leaf_by_leaf(draw: random.Random) -> dict[str, np.ndarray]:
    """The right tensors, one of them missing, renamed, transposed, reshaped, of another type, with
    numbers that are none, or twice under two names."""
    tensors = tensors_of()
    name = draw.choice(sorted(tensors))
    array, kind = tensors[name], draw.choice(
        ("missing", "extra", "transposed", "flat", "type", "number", "name", "empty", "padded"))
    if kind == "missing":
        del tensors[name]
    elif kind == "extra":
        tensors[name + draw.choice(("2", ".weight", "/"))] = array
    elif kind == "transposed":
        tensors[name] = np.ascontiguousarray(array.T)
    elif kind == "flat":
        tensors[name] = array.reshape(-1, *(1,) * draw.randrange(3))
    elif kind == "type":
        tensors[name] = array.astype(draw.choice((np.int8, np.float64, np.uint16, bool)))
    elif kind == "number":
        array.flat[draw.randrange(array.size)] = draw.choice((np.nan, np.inf, -np.inf))
    elif kind == "name":
        tensors[draw.choice(NAMES[1:]) or "a"] = tensors.pop(name)
    elif kind == "empty":
        tensors[name] = array[:0]
    else:  # a kernel padded by a row of zeros, as another framework's convention might
        tensors[name] = np.pad(array, [(0, 1), *[(0, 0)] * (array.ndim - 1)])
    same = (kind == "transposed" and array.T.shape == array.shape
            or kind == "flat" and tensors[name].shape == array.shape
            or kind == "name" and name in tensors)
    return {} if same else tensors


def test_tensors_that_do_not_fit_are_a_table_by_name(tmp_path):
    """Square kernels transposed are the one mistake that shapes do not show (see torch parity)."""
    path, draw = tmp_path / "w.safetensors", random.Random("leaves")
    for _ in range(FILES):
        tensors = leaf_by_leaf(draw)
        if tensors:
            sentence = tried(taken, written(path, tensors))
            assert any(words in sentence for words in (
                "that differ", "classes", "a whole safetensors file"))  # as of "__metadata__"


def test_any_msgpack_file_is_read_or_refused(tmp_path):
    """Flax's checkpoints: bent bytes of a small one."""
    array = msgpack.packb(((2, 3), "float32", np.zeros(6, np.float32).tobytes()))
    good = msgpack.packb({"params": {"a": {"kernel": msgpack.ExtType(1, array)}}, "step": 3})
    path, draw, refused = tmp_path / "checkpoint_1", random.Random("msgpack"), 0
    path.write_bytes(good)
    assert tried(lambda path: weights.open_weights(path, "flax"), path) == ""
    for _ in range(2 * FILES):
        path.write_bytes(draw.choice((bent_bytes, noise))(good, draw))
        refused += bool(tried(lambda path: weights.open_weights(path, "flax"), path))
    assert refused > FILES / 3


EXPORTED = {
    "image_shape": ("[8,8]", "[0,8,3]", "[-8,8,3]", '"abc"', "null", "[8.5,8,3]", "[1e9,1e9,3]",
                    "[8,8,4]", "[true,8,3]", "{"),
    "model": ("{", "[]", "null", "3", '{"name": "resnet9"}', '{"name": 3}', "{}",
              '{"name": "resnet8_tiny", "classes": "10"}'),
}


@pytest.fixture(scope="module")
def exported() -> tuple[dict, dict]:
    """(tensors, metadata) of a file as `launch.export --format=safetensors` writes it."""
    params, stats = drawn("resnet8_tiny", 10, 8)
    tensors = {path: np.asarray(leaf) for path, leaf in tree.flatten(
        {"params": params, "batch_stats": stats}).items()}
    model = {"name": "resnet8_tiny", "classes": 10, "image_shape": [8, 8, 3], "mean": [0.5] * 3,
             "std": [0.25] * 3}
    return tensors, {"model": json.dumps(model), "image_shape": "[8,8,3]", "class_names": '["a"]'}


def test_an_exported_file_is_read(exported, tmp_path):
    """Otherwise the refusals below would say little."""
    save_file(exported[0], tmp_path / "w", exported[1])
    assert formats.load(tmp_path / "w")(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 10)


@pytest.mark.parametrize("field, text", [
    (field, text) for field, texts in EXPORTED.items() for text in texts])
def test_what_an_exported_file_says_of_itself_is_not_believed(exported, tmp_path, field, text):
    """Its metadata, of other types and sizes."""
    save_file(exported[0], tmp_path / "w", exported[1] | {field: text})
    assert "safetensors file of augjax" in tried(formats.load, tmp_path / "w")


@pytest.mark.parametrize("begun", [b"", b"\x08", b"ML\xefR", b"StableHLO", b"\x18\x00\x00\x00"])
def test_noise_is_no_exported_file(tmp_path, begun):
    draw = random.Random(begun)
    for size in (0, 1, 9, 200, 5000):
        (tmp_path / "w").write_bytes(begun + draw.randbytes(size))
        assert tried(formats.load, tmp_path / "w")

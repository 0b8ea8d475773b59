"""Weights files with anything in them: each is read, or refused with a sentence and 3, in bounds.

Hypothesis draws the files, the same each time, so that CI sees what we see; `AUGJAX_FUZZ=N` draws N
of each kind.
"""

import json
import os
from pathlib import Path
import struct
import time
import tracemalloc

from hypothesis import given, HealthCheck, settings, strategies as st
from hypothesis.extra import numpy as numpy_st
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from safetensors.numpy import save_file

from augjax import check, exchange, tree
from augjax.exchange import formats, weights
from exchange.weight_files import drawn, tensors_of, written

FILES = int(os.environ.get("AUGJAX_FUZZ", "60"))
drawing = settings(derandomize=True, deadline=None, database=None, max_examples=FILES,
                   suppress_health_check=list(HealthCheck))  # some of them measure a busy machine
SECONDS, BYTES = 5.0, 50e6  # that one file may cost
TYPES = ("F32", "F64", "F16", "BF16", "F8_E4M3", "I64", "BOOL", "C64", "U8", "", "float32")
NUMBERS = st.integers() | st.sampled_from((2**31, 2**53, 2**63, 2**64 - 1, -(2**63), 10**40))
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=4), max_leaves=8)
NAMES = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from((
    "__metadata__", "../../etc/passwd", "/dev/zero", "a/b", "module.", "\x1b[2J", "x" * 10_000,
    "fc.bias", "fc.bias ", "{0.__class__}", "%s%n", "bn1.num_batches_tracked"))


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


def refusals(function, path: Path, contents: st.SearchStrategy[bytes]) -> int:
    """How many of the files drawn are refused."""
    refused = []

    @drawing
    @given(contents)
    def each(content):
        path.write_bytes(content)
        refused.append(bool(tried(function, path)))

    each()
    return sum(refused)


# --- files ---------------------------------------------------------------------------------------


@st.composite
def bent_bytes(draw, whole: bytes) -> bytes:
    """Up to four pieces put in the place of others of any length; the header's more often."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, 64) | st.integers(0, len(content)))
        length = draw(st.sampled_from((0, 1, 8, 1000, len(content))))
        content[start : start + length] = draw(st.binary(max_size=16))
    return bytes(content)


@st.composite
def bent_header(draw, whole: bytes) -> bytes:
    """The header's own words: names, types, shapes, ranges, double names, its length."""
    size = int.from_bytes(whole[:8], "little")
    header, body = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(header)))
        tensor = header[name] if isinstance(header[name], dict) else {}
        kind = draw(st.sampled_from(("field", "shape", "range", "type", "missing", "name", "all")))
        if kind == "field":
            tensor[draw(st.sampled_from(("dtype", "shape", "data_offsets")))] = draw(ANYTHING)
        elif kind in ("shape", "range"):
            tensor["shape" if kind == "shape" else "data_offsets"] = draw(
                st.lists(NUMBERS, max_size=3))
        elif kind == "type":
            tensor["dtype"] = draw(st.sampled_from(TYPES))
        elif kind == "missing" and tensor:
            tensor.pop(draw(st.sampled_from(sorted(tensor))))
        elif kind == "name":
            header[draw(NAMES)] = header.pop(name)
        else:
            header[name] = draw(ANYTHING)
    text = json.dumps(header)
    if draw(st.integers(0, 9)) == 9:  # a name twice
        text = text[:-1] + "," + json.dumps(dict([draw(st.sampled_from(list(header.items())))]))[1:]
    length = draw(st.sampled_from((len(text),) * 12 + (0, 1, 2**24, 2**31, 2**63, 2**64 - 1)))
    return struct.pack("<Q", length) + text.encode() + body


def noise(whole: bytes) -> st.SearchStrategy[bytes]:
    begun = st.sampled_from((b"", whole[:8], whole[:16], b"\x80\x02", b"PK\x03\x04", b"{"))
    return st.builds(bytes.__add__, begun, st.binary(max_size=4096))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    return written(tmp_path_factory.mktemp("whole") / "w.safetensors").read_bytes()


def read(path: Path) -> None:
    """Every number of a file that is taken."""
    found = weights.open_weights(path, "repdistiller")
    taken = [name for name, tensor in found.tensors.items() if tensor.dtype in weights.EXACT]
    for name, array in found.read(taken):
        assert array.shape == found.tensors[name].shape


@pytest.mark.parametrize("bend", [bent_bytes, bent_header, noise])
def test_any_safetensors_file_is_read_or_refused(tmp_path, whole, bend):
    refused = refusals(read, tmp_path / "w.safetensors", bend(whole))
    assert refused > FILES / 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_any_msgpack_file_is_read_or_refused(tmp_path):
    """Flax's checkpoints: bent bytes of a small one."""
    array = msgpack.packb(((2, 3), "float32", np.zeros(6, np.float32).tobytes()))
    good = msgpack.packb({"params": {"a": {"kernel": msgpack.ExtType(1, array)}}, "step": 3})
    path = tmp_path / "checkpoint_1"
    path.write_bytes(good)

    def opened(path):
        return weights.open_weights(path, "flax")

    assert tried(opened, path) == ""
    assert refusals(opened, path, bent_bytes(good) | noise(good)) > FILES / 3


# --- tensors -------------------------------------------------------------------------------------

KINDS = [np.dtype(kind) for kind in (
    "float32", "float16", jnp.bfloat16, "float64", "int8", "uint16", "int64", "bool")]
TENSORS = st.dictionaries(
    NAMES.filter("__metadata__".__ne__), st.sampled_from(KINDS).flatmap(lambda kind: st.builds(
        lambda numbers: numbers.astype(kind),
        numpy_st.arrays(np.float16, numpy_st.array_shapes(min_dims=0, min_side=0, max_side=4),
                        elements=st.integers(0, 100)))), max_size=5)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("place") / "w.safetensors"


@drawing
@given(TENSORS)
def test_what_is_read_is_what_was_written(place, tensors):
    save_file(tensors, place)
    found = weights.open_weights(place, "repdistiller")
    wrapped = "module." if all(name.startswith("module.") for name in tensors) else ""
    assert set(found.tensors) == {name.removeprefix(wrapped) for name in tensors}
    for name, array in found.read(found.tensors):
        given = tensors[wrapped + name]
        assert array.dtype == given.dtype and array.shape == given.shape == found.tensors[name][0]
        assert (found.tensors[name].dtype in weights.EXACT) == (
            given.dtype in weights.EXACT.values())
        np.testing.assert_array_equal(array, given)


RIGHT = tensors_of()
SHAPES = {
    "transposed": lambda array: np.ascontiguousarray(array.T), "flat": np.ravel,
    "wrapped": lambda array: array[None], "empty": lambda array: array[:0],
    "padded": lambda array: np.pad(array, [(0, 1), *[(0, 0)] * (array.ndim - 1)])}


@st.composite
def states(draw) -> dict[str, np.ndarray]:
    """The tensors of a resnet8, up to three of them missing, renamed, twice under two names, of
    another shape or type, or with a number that is none or below 0."""
    tensors = dict(RIGHT)
    for name in draw(st.lists(st.sampled_from(sorted(RIGHT)), max_size=3, unique=True)):
        array = tensors.pop(name, RIGHT[name])
        kind = draw(st.sampled_from(("missing", "name", "twice", "type", "number", *SHAPES)))
        if kind in ("name", "twice"):
            tensors[draw(NAMES.filter("__metadata__".__ne__))] = array
        if kind in SHAPES:
            array = SHAPES[kind](array)
        elif kind == "type":
            array = array.astype(draw(st.sampled_from(KINDS)))
        elif kind == "number":
            array = array.copy()
            array.flat[draw(st.integers(0, array.size - 1))] = draw(
                st.sampled_from((np.nan, np.inf, -np.inf, -1.0)))
        if kind not in ("missing", "name"):
            tensors[name] = array
    return tensors


def wrong_in(tensors: dict[str, np.ndarray]) -> int:
    """How many rows the table of a refusal has: names and shapes first, then numbers."""
    rows = sum(name not in tensors or tensors[name].shape != RIGHT[name].shape
               or tensors[name].dtype not in weights.EXACT.values() for name in RIGHT)
    rows += sum(name not in RIGHT and not name.endswith("num_batches_tracked") for name in tensors)
    if rows:
        return rows
    arrays = {name: np.asarray(tensors[name], np.float32) for name in RIGHT}
    return sum(not np.isfinite(array).all() or name.endswith("_var") and array.min() < 0
               for name, array in arrays.items())


def test_tensors_that_do_not_fit_are_a_table_by_name(tmp_path):
    """Square kernels transposed are the one mistake that shapes do not show (see torch parity)."""
    path, refused, converted = tmp_path / "w.safetensors", [], []

    @drawing
    @given(states())
    def each(tensors):
        converted.clear()
        sentence = tried(lambda path: converted.append(
            exchange.convert("repdistiller", "resnet8", path, "digits")), written(path, tensors))
        wrong, head = wrong_in(tensors), tensors.get("fc.weight", RIGHT["fc.weight"])
        refused.append(bool(wrong))
        if head.ndim == 2 and len(head) != 10:
            assert "expected 10 classes" in sentence
        elif wrong:
            assert f"got {wrong} that differ" in sentence
        else:
            assert sentence == ""
            params = converted[0].params
            np.testing.assert_array_equal(params["head"]["kernel"].T, tensors["fc.weight"])
            np.testing.assert_array_equal(
                params["stem"]["kernel"], tensors["conv1.weight"].transpose(2, 3, 1, 0))

    each()
    assert FILES / 3 < sum(refused) < len(refused)


# --- files of ours -------------------------------------------------------------------------------

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
    contents = st.binary(max_size=5000).map(begun.__add__)
    assert refusals(formats.load, tmp_path / "w", contents) >= FILES

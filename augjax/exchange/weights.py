"""Other people's files of tensors: names, shapes and types first, numbers only when they fit.

safetensors for PyTorch, msgpack and Orbax for Flax. Nothing here unpickles: a pickle is a program.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
import hashlib
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import safetensors

from augjax import check, tree

EXACT = {name: np.dtype(getattr(jnp, name)) for name in (  # their every number is a float32
    "float32", "float16", "bfloat16")}
TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
HEADER_BYTES = 1 << 24  # the largest importable model needs 200 kB
MSGPACK_BYTES = 1 << 31  # is read whole: ResNet-50 with its momentum has 0.2 GB
SMALL = {"max_array_len": 64, "max_map_len": 1 << 16}  # lists claim memory before they are read
NDARRAY = 1  # Flax's msgpack type of an array: (shape, dtype, bytes), flax/serialization.py


class Tensor(NamedTuple):
    """What a file says of a tensor before any number is read; `dtype` is a name."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Weights:
    """A file of tensors; `read(names)` gives (name, array) one by one, in the file's layout."""

    path: Path
    tensors: Mapping[str, Tensor]
    read: Callable[[Iterable[str]], Iterator[tuple[str, np.ndarray]]]


def open_weights(path: Path, source: str) -> Weights:
    """What `source` publishes: safetensors files, or Flax's checkpoints. Raises DataError."""
    try:
        return _open_flax(path) if source == "flax" else _open_torch(path)
    except OSError as error:
        raise check.DataError(check.sentence(
            str(path), "a file that can be read", error, "give its path and the right to it"
        )) from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, or over the sorted names and bytes of a folder's files."""
    sha = hashlib.sha256()
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not part.is_file():
            continue
        if path.is_dir():
            sha.update(f"{part.relative_to(path)}\n".encode())
        with open(part, "rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


# --- PyTorch -------------------------------------------------------------------------------------


def _open_torch(path):
    """A safetensors file, its header checked: lengths, ranges, no overlap, nothing left over.

    The prefix "module." of `nn.DataParallel` is taken off. Raises DataError.
    """
    _require_file(path)
    with open(path, "rb") as file:
        start = file.read(16)
    _refuse_pickles(path, start)
    length, size = int.from_bytes(start[:8], "little"), path.stat().st_size
    check.require(
        len(start) > 8 and length <= min(size - 8, HEADER_BYTES), f"{path}",
        f"a safetensors file: its header within the {size} bytes and {HEADER_BYTES} at most",
        f"a header of {length} bytes" if len(start) >= 8 else f"{size} bytes in all",
        "fetch the file again", check.DataError)
    try:
        with safetensors.safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            tensors = {name: _tensor(part.get_shape(), part.get_dtype())
                       for name, part in slices.items()}
    except safetensors.SafetensorError as error:
        raise check.DataError(check.sentence(
            str(path), "a whole safetensors file", error, "fetch the file again")) from error
    wrapped = "module." if all(name.startswith("module.") for name in tensors) else ""

    def read(names):
        with safetensors.safe_open(path, "numpy") as file:
            for name in names:
                yield name, file.get_tensor(wrapped + name)

    return Weights(path, {name[len(wrapped):]: part for name, part in tensors.items()}, read)


def _tensor(shape, dtype):
    return Tensor(tuple(shape), TYPES.get(str(dtype), str(dtype)))


def _require_file(path):
    check.require(path.is_file(), f"{path}", "a file of weights",
                  "a folder" if path.is_dir() else "nothing there",
                  "give the path of a .safetensors file", check.DataError)


def _refuse_pickles(path, start):
    """A PyTorch archive (a zip) or a pickle, by its first bytes; loading one runs what it says.

    A safetensors file may begin like a pickle, but after eight bytes its header's "{" stands.
    """
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if start[8:9] == b"{" or not (pickled or start.startswith(b"PK\x03\x04")):
        return
    said = check.sentence(
        str(path), "a safetensors file", "a pickle, which can run any program when it is loaded",
        "turn it into safetensors once, where PyTorch is, with its loader of plain tensors")
    raise check.DataError(f"""{said}

    import torch
    from safetensors.torch import save_file
    state = torch.load({path.name!r}, map_location="cpu", weights_only=True)
    state = state.get("model", state.get("state_dict", state))
    state = {{name: tensor.contiguous() for name, tensor in state.items()}}
    save_file(state, {path.with_suffix(".safetensors").name!r})""")


# --- Flax ----------------------------------------------------------------------------------------


def _open_flax(path):
    """A checkpoint of flax.training.checkpoints: a msgpack file, or a folder that Orbax wrote.

    Tensors are called "params/a/b/kernel" and "batch_stats/a/b/mean"; optimiser state is left out.
    Raises DataError.
    """
    check.require(path.exists(), f"{path}", "a Flax checkpoint", "nothing there",
                  "give the path of the checkpoint", check.DataError)
    return _open_orbax(path) if path.is_dir() else _open_msgpack(path)


def _open_msgpack(path):
    size = path.stat().st_size
    check.require(0 < size <= MSGPACK_BYTES, f"{path}", f"1 to {MSGPACK_BYTES} bytes", size,
                  "give one checkpoint of a ResNet-50", check.DataError)
    content = path.read_bytes()
    _refuse_pickles(path, content[:16])
    try:
        state = msgpack.unpackb(content, ext_hook=_array, strict_map_key=False, **SMALL)
        leaves = _named(tree.flatten(state))
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise check.DataError(check.sentence(
            str(path), "a whole msgpack checkpoint of Flax", repr(error)[:200],
            "fetch the file again")) from error
    arrays = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, np.ndarray)}
    tensors = {name: Tensor(leaf.shape, leaf.dtype.name) for name, leaf in arrays.items()}
    return Weights(path, tensors, lambda names: ((name, arrays[name]) for name in names))


def _array(code, data):
    """The ext hook of Flax's arrays; other types stay what they are."""
    if code != NDARRAY:
        return msgpack.ExtType(code, data)
    shape, name, content = msgpack.unpackb(data, **SMALL)
    dtype = np.dtype(EXACT.get(name, name))
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"an array {shape} of {name} in {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape)


def _open_orbax(path):
    try:
        described = ocp.metadata(path.absolute()).metadata
    except Exception as error:  # noqa: BLE001 Orbax has no common error
        raise _broken_orbax(path, error) from error
    where = {new: old for old, new in _renamed(tree.flatten(described)).items()}
    leaves = {name: tree.flatten(described)[old] for name, old in where.items()}
    tensors = {name: Tensor(tuple(leaf.shape), np.dtype(leaf.dtype).name)
               for name, leaf in leaves.items() if hasattr(leaf, "shape")}

    def read(names):
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        wanted: dict[str, Any] = {}
        names = list(names)
        for name in names:
            *parents, leaf = where[name].split("/")
            branch = wanted
            for parent in parents:
                branch = branch.setdefault(parent, {})
            shape, dtype = tensors[name]
            branch[leaf] = jax.ShapeDtypeStruct(shape, EXACT[dtype], sharding=here)
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        try:
            with context:
                loaded = tree.flatten(ocp.load(path.absolute(), wanted))
        except Exception as error:  # noqa: BLE001
            raise _broken_orbax(path, error) from error
        for name in names:
            yield name, np.asarray(loaded[where[name]])

    return Weights(path, tensors, read)


def _broken_orbax(path, error):
    first = (str(error) or repr(error)).splitlines()[0][:200]
    return check.DataError(check.sentence(
        str(path), "a whole checkpoint that Orbax wrote", first, "name the folder of one step"))


def _renamed(leaves):
    """{path in the checkpoint: our name for it}, of parameters and statistics alone.

    Newer checkpoints hold params and batch_stats, those before 2021's optax optimizer/target and
    model_state/batch_stats.
    """
    beginnings = {"params/": "params/", "batch_stats/": "batch_stats/",
                  "optimizer/target/": "params/", "model_state/batch_stats/": "batch_stats/"}
    return {path: new + path.removeprefix(old) for path in leaves
            for old, new in beginnings.items() if path.startswith(old)}


def _named(leaves):
    return {name: leaves[path] for path, name in _renamed(leaves).items()}

"""The files that a network leaves in: of each format what writes it, and what makes it run again.

All take pixels [b, H, W, C] of 0 to 255 for any b; resize, normalisation and weights are inside.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import export as jax_export
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save_file

from augjax import check, compress, models, tree
from augjax.augment import plain
from augjax.exchange.to_onnx import BEGINNING, LOGITS, PIXELS, to_onnx
from augjax.exchange.weights import open_weights, Tensor
from augjax.types import Batch, Net, Params, Rows, Stats

Forward = Callable[[Any], jax.Array]  # [b, H, W, C] of 0..255, any number type -> [b, K] float32

PLATFORMS = ("cpu", "cuda", "tpu")  # that a StableHLO program is lowered for
FETCH = "fetch the file again, or export it anew"
TRAINING = ("domains", "scales", "bn_per_view", "bn_images", "views", "remat")  # of `models.build`
EXTRAS = {"onnx": ("onnx", "onnxruntime")}  # packages of the extra of that name in setup.py


class Deployed(NamedTuple):
    """A network as it leaves: its weights as they are seen, and one BatchNorm set."""

    model: Mapping[str, Any]  # what `network` builds it from
    image_shape: tuple[int, int, int]  # (H, W, C) of the pixels that it takes
    class_names: tuple[str, ...]  # in the order of the logits
    params: Params  # float32 NumPy arrays; pruned weights are zeros
    stats: Stats


def network(model: Mapping[str, Any]) -> Net:
    """The Net of a plain description: what `models.build` takes, in data that JSON holds.

    `model` has name, classes, image_shape (what the layers see), mean and std, and may have dtype
    by its name, activation_bits and all other options; what leaves has one BatchNorm set.
    """
    options = {"dtype": "float32", "activation_bits": 32} | dict(model)
    bits = options.pop("activation_bits")
    return models.build(
        **options | {"dtype": jnp.dtype(options["dtype"])},
        activation=None if bits == 32 else compress.quantise_activations(bits))


def of_one_set(model: Mapping[str, Any], domain: int) -> dict[str, Any]:
    """A description with one of the BatchNorm sets alone, at the size that its rows have."""
    height, width, channels = model["image_shape"]
    scales = model.get("scales", ())
    if domain < len(scales):
        height = width = scales[domain]
    left = {name: value for name, value in model.items() if name not in TRAINING}
    return left | {"image_shape": (height, width, channels)}


def rows_of(image: jax.Array) -> Rows:
    """Rows of one view, of images [b, H, W, C] without labels."""
    none = jnp.zeros(image.shape[:1], jnp.int32)
    return plain(Batch(image, none, none))


def require_extra(format: str) -> None:
    """Raises ConfigError unless the packages are installed that a format needs beside augjax's."""
    wanted = EXTRAS.get(format, ())
    missing = [name for name in wanted if find_spec(name) is None]
    check.require(not missing, f"--format={format}", f"the packages {' and '.join(wanted)}",
                  f"no {' and no '.join(missing)}",
                  f'run `pip install -e ".[{format}]"` in the checkout of augjax')


def load(path: Path) -> Forward:
    """The function in a file, of the format that its first bytes tell. Raises DataError."""
    with open(path, "rb") as file:
        start = file.read(16)
    if start[8:9] == b"{":  # a header of JSON after its length
        return FORMATS["safetensors"][1](path)
    return FORMATS["onnx" if start.startswith(BEGINNING) else "stablehlo"][1](path)


def _taking(predict: Callable[..., jax.Array], image_shape: tuple[int, ...]) -> Forward:
    def forward(pixels):
        check.require(np.shape(pixels)[1:] == image_shape, "pixels",
                      ["b", *image_shape], list(np.shape(pixels)), "cut or resize the images")
        return predict(jnp.asarray(pixels, jnp.float32))

    return forward


def _logits(network_: Deployed) -> Callable[[jax.Array], jax.Array]:
    """The function [b, H, W, C] float32, 0..255 -> [b, K] float32, its weights inside."""
    net, variables = network(network_.model), (network_.params, network_.stats)
    return lambda image: net.predict(variables, rows_of(image), 0).logits.astype(jnp.float32)


def _broken(path: Path, format: str, error: Exception) -> check.DataError:
    return check.DataError(check.sentence(
        str(path), f"a whole {format} file of augjax", repr(error)[:200], FETCH))


# --- stablehlo -----------------------------------------------------------------------------------


def _write_stablehlo(network_: Deployed, path: Path) -> None:
    """A program of `jax.export` over float32 pixels, which hold every uint8; weights inside."""
    sides = ", ".join(map(str, network_.image_shape))
    image = jax.ShapeDtypeStruct(jax_export.symbolic_shape(f"b, {sides}"), jnp.float32)
    path.write_bytes(jax_export.export(
        jax.jit(_logits(network_)), platforms=PLATFORMS)(image).serialize())


def _load_stablehlo(path: Path) -> Forward:
    try:
        program = jax_export.deserialize(bytearray(path.read_bytes()))
        return _taking(jax.jit(program.call), tuple(program.in_avals[0].shape[1:]))
    except Exception as error:  # noqa: BLE001 flatbuffers has no error of its own
        raise _broken(path, "stablehlo", error) from error


# --- safetensors ---------------------------------------------------------------------------------


def _write_safetensors(network_: Deployed, path: Path) -> None:
    """Tensors "params/..." and "batch_stats/..."; the metadata have the model as JSON."""
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in tree.flatten(
        {"params": network_.params, "batch_stats": network_.stats}).items()}
    save_file(tensors, path, {name: json.dumps(getattr(network_, name))
                              for name in ("model", "image_shape", "class_names")})


def _load_safetensors(path: Path) -> Forward:
    found = open_weights(path, "safetensors")
    with safetensors.safe_open(path, "numpy") as file:
        described = file.metadata() or {}
    try:
        model, image_shape = (json.loads(described[name]) for name in ("model", "image_shape"))
        net = network(model)
        check.typed("image_shape", image_shape, tuple[int, int, int])
        check.require(min(image_shape) > 0 and image_shape[2] == model["image_shape"][2],
                      "image_shape", "[H, W, C] with the model's C", image_shape, FETCH)
        params, stats = jax.eval_shape(net.init, jax.random.key(0))
    except Exception as error:  # noqa: BLE001 a file may say anything of itself
        raise _broken(path, "safetensors", error) from error
    whole = {"params": params, "batch_stats": stats}
    wanted = {name: Tensor(leaf.shape, leaf.dtype.name)
              for name, leaf in tree.flatten(whole).items()}
    wrong = sorted(name for name in {*wanted, *found.tensors}
                   if wanted.get(name) != found.tensors.get(name))
    check.require(not wrong, f"{path}", "the tensors of its model",
                  f"{len(wrong)} that differ: {', '.join(wrong[:3])}", FETCH, check.DataError)
    arrays = dict(found.read(wanted))
    loaded = tree.map_with_path(lambda name, _: arrays[name], whole)
    predict = jax.jit(lambda variables, image: net.predict(variables, rows_of(image), 0).logits)
    return _taking(lambda image: predict((loaded["params"], loaded["batch_stats"]), image),
                   tuple(image_shape))


# --- onnx ----------------------------------------------------------------------------------------


def _write_onnx(network_: Deployed, path: Path) -> None:
    """The operators of ONNX over float32 pixels, in float32; weights inside.

    A runtime adds up in another order than XLA, so that an activation next to the middle between
    two levels of a quantiser may fall to the other: such a network is refused if a test image
    shows it, and of thousands of images some do.
    """
    dtype = network_.model.get("dtype", "float32")
    check.require(dtype == "float32", "--format=onnx", "a network that computes in float32", dtype,
                  "use stablehlo or safetensors")
    path.write_bytes(to_onnx(_logits(network_), network_.image_shape))


def _load_onnx(path: Path) -> Forward:
    require_extra("onnx")
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(
            path.read_bytes(), providers=["CPUExecutionProvider"])
        image_shape = tuple(session.get_inputs()[0].shape[1:])
    except Exception as error:  # noqa: BLE001 onnxruntime has no common error
        raise _broken(path, "onnx", error) from error
    return _taking(
        lambda image: jnp.asarray(session.run([LOGITS], {PIXELS: np.asarray(image)})[0]),
        image_shape)


FORMATS: dict[str, tuple[Callable[[Deployed, Path], None], Callable[[Path], Forward]]] = {
    "stablehlo": (_write_stablehlo, _load_stablehlo),
    "safetensors": (_write_safetensors, _load_safetensors),
    "onnx": (_write_onnx, _load_onnx),
}

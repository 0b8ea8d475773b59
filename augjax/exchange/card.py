"""The card beside an exported file: what it is, how it came about, what was measured and where."""

from collections.abc import Mapping, Sequence
import json
import math
from pathlib import Path
import re
import time
from typing import Any, NamedTuple

from augjax import check, models, tree
from augjax.exchange.weights import sha256
from augjax.train import files, folder, Phase, Recipe, Source
from augjax.types import Params, PyTree

NOT_STATED = "not stated"
USE = {
    "stablehlo": """\
`augjax.exchange.load("{name}")` gives the function. Without augjax, float32 pixels:
`jax.export.deserialize(bytearray(open("{name}", "rb").read())).call(pixels)`, on cpu, cuda or tpu.
Later versions of JAX may refuse old files: keep the run folder.""",
    "safetensors": """\
`augjax.exchange.load("{name}")` gives the function. The tensors are float32 and dense; the metadata
`model` (JSON) has what `augjax.exchange.network` rebuilds the network from.""",
    "onnx": """\
`augjax.exchange.load("{name}")` gives the function. Without augjax, float32 pixels:
`onnxruntime.InferenceSession("{name}").run(["logits"], {{"pixels": pixels}})[0]`.""",
}


class Layer(NamedTuple):
    """A convolution or linear weight as the network sees it."""

    path: str
    shape: tuple[int, ...]
    weights: int
    nonzero: int
    bits: int


class Told(NamedTuple):
    """What a card is written from."""

    source: Source
    recipe: Recipe
    model: Mapping[str, Any]  # see `export.network`
    format: str
    domain: int
    data_note: str
    measured: Mapping[str, Any]  # of `export.compared`
    layers: Sequence[Layer]
    numbers: int  # that leave, BatchNorm's statistics included


def of(path: Path) -> Path:
    """Where the card of a file lies."""
    return path.with_name(path.name + ".md")


def require_same(path: Path) -> None:
    """Raises DataError unless a card beside the file, if there is one, has its SHA-256."""
    if not of(path).is_file():
        return
    stated = re.search(r"SHA-256: `([0-9a-f]{64})`", of(path).read_text())
    came = sha256(path)
    check.require(stated is not None and stated[1] == came, f"{path}",
                  f"SHA-256 {stated[1] if stated else 'on its card'}", came,
                  "the file or its card was altered: fetch both again", check.DataError)


def read(run: str | Path, name: str) -> dict[str, Any]:
    """A JSON file of a run folder; CheckpointError where it is not there, as before a first end."""
    path = files.place(run) / name
    check.require(files.exists(path), f"run folder {run}", name, "none",
                  "train one of its phases to its end first", check.CheckpointError)
    return json.loads(files.read_text(path))


def layers(params: Params, state: PyTree) -> list[Layer]:
    """Every prunable weight of effective `params`; `state` is that of the transform.

    Bits are those of DoReFa's state, 32 where there is none and in the first and last layer.
    """
    bits = next((int(leaf) for path, leaf in tree.flatten(state).items()
                 if path.rpartition("/")[2] == "bits"), 32)
    return [
        Layer(path, leaf.shape, leaf.size, int((leaf != 0).sum()),
              32 if tree.matches(path, models.FULL_PRECISION) else bits)
        for path, leaf in tree.flatten(params).items()
        if leaf.ndim >= 2 and path.rpartition("/")[2] == "kernel"
    ]


def sizes(layers: Sequence[Layer], numbers: int) -> dict[str, int]:
    """Bytes of a network of `numbers` float32 numbers in all, stored in three ways.

    dense   4 bytes for every number
    sparse  of a layer, 4 bytes for a weight that is not 0 and 1 bit for every weight, or dense
            where that is less
    packed  the same with the layer's bits in place of 4 bytes; as few bits have no level at 0, a
            layer with some needs the 1 bit
    """
    others = 4 * (numbers - sum(layer.weights for layer in layers))
    return {
        "dense": 4 * numbers,
        "sparse": others + sum(_stored(layer, 32) for layer in layers),
        "packed": others + sum(_stored(layer, layer.bits) for layer in layers),
    }


def _stored(layer: Layer, bits: int) -> int:
    """Bytes of a layer's weights in `bits` bits, with a bitmap of those that are not 0 or all."""
    left = math.ceil(layer.weights / 8) + math.ceil(bits * layer.nonzero / 8)
    every = math.ceil(bits * layer.weights / 8)
    return min(left, every) if bits == 32 or layer.nonzero == layer.weights else left


# --- the text ------------------------------------------------------------------------------------


def text(told: Told, name: str, file: Path) -> str:
    """The card of `file`, which is to be called `name`."""
    data, source = told.recipe.data, told.source
    height, width, channels = data.image_shape
    provenance = read(source.run, "provenance.json")
    return "\n\n".join([
        f"# {name}",
        f"{told.model['name']} for {data.name}: pixels [b, {height}, {width}, {channels}], RGB, "
        f"0 to 255, to logits [b, {data.classes}], for any b. Resize and normalisation are inside.",
        USE[told.format].format(name=name),
        _listing({
            "format": told.format, "bytes": f"{file.stat().st_size:,}",
            "SHA-256": f"`{sha256(file)}`",
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "licence of the network": NOT_STATED, "licence of the data": NOT_STATED,
        }),
        "## Architecture",
        _listing({field: f"{value}" for field, value in told.model.items()}),
        "## Recipe",
        f"Phase {source.phase}, step {source.step}, {source.weights} weights, "
        f"BatchNorm set {told.domain}.",
        _recipe(told, provenance),
        "## Data",
        _listing({
            "name": data.name, "note": told.data_note or NOT_STATED,
            "images": ", ".join(f"{len(getattr(data, split)):,} {split}" for split in (
                "train", "test", "holdout") if getattr(data, split) is not None),
            "classes, in the order of the logits": ", ".join(data.class_names),
        }),
        "## Accuracy",
        _accuracy(told),
        "## Weights",
        _weights(told),
        "## Provenance",
        _listing({
            "commit": ", ".join(sorted({s["git_commit"] for s in provenance["starts"]})),
            "trained with": _versions(provenance["starts"][-1]["versions"]),
            "trained on": ", ".join(provenance["starts"][-1]["devices"]),
            "exported with": _versions(folder.versions()), "exported on": folder.hardware(),
        }),
    ]) + "\n"


def _recipe(told: Told, provenance: Mapping[str, Any]) -> str:
    """The phases up to the one that leaves, or where a converted network is from."""
    if "weights" in provenance:
        return "Not trained here, but converted:\n\n" + _listing(provenance["weights"])
    names = [phase.name for phase in told.recipe.phases]
    rows = [_phase(phase, told.recipe)
            for phase in told.recipe.phases[: names.index(told.source.phase) + 1]]
    return _table(["phase", "starts from", "frozen beside it", "steps", "batch", "terms x weight"],
                  rows)


def _phase(phase: Phase, recipe: Recipe) -> list[str]:
    weights = {name: "scheduled" if callable(weight) else f"{weight:g}"
               for name, weight in phase.knobs.weights.items()}
    return [
        phase.name, ", ".join(map(str, phase.init.values())) or "scratch",
        ", ".join(f"{name} = {source}" for name, source in phase.frozen.items()) or "none",
        f"{recipe.steps(phase):,}", f"{phase.batch_size:,}",
        ", ".join(f"{name} x {weight}" for name, weight in weights.items()),
    ]


def _accuracy(told: Told) -> str:
    summary, found = read(told.source.run, "summary.json"), told.measured
    known = summary["phases"][told.source.phase]
    rows = [["summary.json, of the phase's end", name, _share(value)]
            for name, value in known.items() if name.endswith("accuracy")]
    rows += [["this file, run again", name, _share(found[name])]
             for name in ("accuracy", "top5_accuracy")]
    return _table(["where", "what", "value"], rows) + (
        f"\n\nThis file was run on all {found['images']:,} test images, one by one and in batches "
        f"of {found['batch_size']:,}: each time every prediction is that of the run folder's "
        f"network, and the logits, up to {found['largest_logit']:.3g}, differ by "
        f"{found['difference']:.2g} at most.\nHardware of the run: {summary['hardware']}.")


def _weights(told: Told) -> str:
    total = sum(layer.weights for layer in told.layers)
    left = sum(layer.nonzero for layer in told.layers)
    stored = sizes(told.layers, told.numbers)
    return _listing({
        "sparsity of the layers below": _share(1 - left / max(total, 1)),
        "numbers in all, BatchNorm included": f"{told.numbers:,}",
        "dense, 4 bytes for every number": f"{stored['dense']:,} bytes",
        "sparse, 4 bytes for a weight that is not 0 and, where it saves, a bitmap":
            f"{stored['sparse']:,} bytes",
        "packed, the layer's bits for such a weight and a bitmap where needed":
            f"{stored['packed']:,} bytes",
    }) + "\n\nThe file itself is dense; sparse and packed are computed, not written.\n\n" + _table(
        ["layer", "shape", "weights", "not 0", "sparsity", "bits"],
        [[layer.path, " x ".join(map(str, layer.shape)), f"{layer.weights:,}",
          f"{layer.nonzero:,}", _share(1 - layer.nonzero / layer.weights), str(layer.bits)]
         for layer in told.layers])


def _share(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.2%}"


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _listing(fields: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in fields.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |"
                     for line in (head, ["---"] * len(head), *rows))

"""A trained network leaves the house: one file that takes pixels, run again before it is kept.

What leaves is what the network computes with: masks and quantisers applied, one BatchNorm set.
Resize and normalisation are inside; the batch may have any size.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
import json
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any, NamedTuple

import jax
from jax import export as jax_export
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save_file

from augjax import check, compress, data, models, tree
from augjax.augment import plain
from augjax.exchange import card
from augjax.exchange.weights import open_weights, Tensor
from augjax.train import make_mesh, Recipe, Source, start
from augjax.train.phases import saved_step
from augjax.types import Batch, Net, Params, Rows, Stats

Forward = Callable[[Any], jax.Array]  # [b, H, W, C] of 0..255, any number type -> [b, K] float32

PLATFORMS = ("cpu", "cuda", "tpu")  # that a StableHLO program is lowered for
TOLERANCE = 1e-4  # of the largest |logit|: how far a file may be from its run folder
FETCH = "fetch the file again, or export it anew"


class Deployed(NamedTuple):
    """A network as it leaves: its weights as they are seen, and one BatchNorm set."""

    model: Mapping[str, Any]  # what `network` builds it from
    image_shape: tuple[int, int, int]  # (H, W, C) of the pixels that it takes
    class_names: tuple[str, ...]  # in the order of the logits
    params: Params  # float32 NumPy arrays; pruned weights are zeros
    stats: Stats


def network(model: Mapping[str, Any]) -> Net:
    """The Net, of one BatchNorm set, of a plain description.

    `model` has name, classes, image_shape (what the layers see), mean and std as `models.build`
    takes them, and may have dtype, activation_bits and the options of the model's family.
    """
    options = {"dtype": "float32", "activation_bits": 32} | dict(model)
    bits = options.pop("activation_bits")
    return models.build(
        **options | {"dtype": jnp.dtype(options["dtype"])},
        activation=None if bits == 32 else compress.quantise_activations(bits))


# --- in and out of the house ---------------------------------------------------------------------


def export(source: Source, recipe: Recipe, model: Mapping[str, Any], path: str | Path, format: str,
           domain: int = 0, data_note: str = "") -> dict[str, Any]:
    """Writes a trained network to `path` and a card beside it; returns what was measured.

    Args:
      source: a phase that is finished, in a run folder (`run` must be given).
      recipe: of that run folder, for its data and phases.
      model: what `network` rebuilds the source's learner from.
      path: must not exist.
      format: a row of FORMATS.
      domain: the BatchNorm set that leaves.
      data_note: what the card adds to the data's name, such as "JPEG copy".

    The file is loaded again and run on every test image, by itself and in batches of the phase's
    evaluation; both must predict what the run folder's network does, with logits within TOLERANCE
    of the largest. Only then it gets its name: `path` is there whole, with its card, or not at all.

    Raises ConfigError for wrong names, CheckpointError for a phase that is not finished, weights
    that were not kept or a place that cannot be written to, NumericsError where the file differs.
    """
    path = _require_new(Path(path).expanduser().absolute())
    write, read = FORMATS[check.one_of("--format", format, FORMATS)]
    phase = source.origin or recipe.phase(source.phase)
    finished = card.read(source.run, "summary.json").get("phases", {})
    check.require(phase.name in finished, f"phase {phase.name!r} of {source.run}",
                  f"one of its finished phases {sorted(finished)}", "one that is not finished",
                  "train it to its end first", check.CheckpointError)
    source = replace(source, step=saved_step(source, source.run))
    trained = start.read(source, recipe, Path(source.run), make_mesh(jax.devices()[:1]))
    net, apply = phase.objective.nets[source.learner], phase.objective.transform.apply
    seen = jax.tree.map(np.asarray, apply(trained[0], trained[2])[source.learner])
    leaving = Deployed(model, recipe.data.image_shape, recipe.data.class_names,
                       *_one_domain(seen, trained[1], domain))

    @jax.jit
    def here(params, stats, state, image):
        return net.predict((apply(params, state)[source.learner], stats), _rows(image), domain
                           ).logits

    def finish(partial: Path) -> dict[str, Any]:
        write(leaving, partial)
        found = compared(read(partial), lambda image: here(*trained, image), recipe.data.test,
                         phase.evaluate_batch)
        told = card.Told(source, recipe, model, format, domain, data_note, found,
                         card.layers(seen, trained[2]), tree.count((leaving.params, leaving.stats)))
        card.of(partial).write_text(card.text(told, path.name, partial))
        return found

    return _written(path, finish)


def load(path: str | Path) -> Forward:
    """The network in an exported file: pixels [b, H, W, C], uint8 or float, 0..255, to logits.

    A card beside the file must have its SHA-256. Raises DataError for a file that is not whole.
    """
    path = Path(path).expanduser()
    check.require(path.is_file(), f"{path}", "an exported file", "none", "give its path",
                  check.DataError)
    card.require_same(path)
    with open(path, "rb") as file:
        safe = file.read(9)[8:] == b"{"  # a header of JSON after its length
    return FORMATS["safetensors" if safe else "stablehlo"][1](path)


def compared(forward: Forward, reference: Forward, images: data.Source, batch_size: int
             ) -> dict[str, Any]:
    """{images, batch_size, accuracy, top5_accuracy, difference, largest_logit} of a file.

    `difference` is max|logit - that of the reference|, over images by themselves and in batches.
    Raises NumericsError where it is above TOLERANCE x the largest |logit| or a prediction differs.
    """
    worst, largest, changed, hits = 0.0, 0.0, 0, np.zeros(5, int)
    for first in range(0, len(images), batch_size):
        places = np.arange(first, first + batch_size)
        pixels = images.read(np.minimum(places, len(images) - 1))  # the last batch is padded
        count = min(batch_size, len(images) - first)
        expected = np.asarray(reference(pixels))[:count]
        together = np.asarray(forward(pixels))[:count]
        alone = np.concatenate([forward(pixels[k : k + 1]) for k in range(count)])
        for logits in (together, alone):
            worst = np.maximum(worst, np.abs(logits - expected).max())  # keeps a NaN
            changed += int((logits.argmax(1) != expected.argmax(1)).sum())
        largest = np.maximum(largest, np.abs(expected).max())
        ranked = np.argsort(-together, axis=1, kind="stable")[:, :5]
        hit = ranked == images.labels[places[:count], None]
        hits[: hit.shape[1]] += hit.sum(0)
    check.require(
        changed == 0 and worst <= TOLERANCE * largest, "the exported file",
        f"the run folder's predictions, and logits within {TOLERANCE * largest:.2g}",
        f"{changed} of {2 * len(images)} that differ, logits by {worst:.2g}",
        "nothing was kept; a network that computes in bfloat16 rounds otherwise in every program",
        check.NumericsError)
    return {"images": len(images), "batch_size": batch_size, "accuracy": hits[0] / len(images),
            "top5_accuracy": hits.sum() / len(images), "difference": float(worst),
            "largest_logit": float(largest)}


def _require_new(path: Path) -> Path:
    for each in (path, card.of(path)):
        check.require(not each.exists(), f"--out {each}", "a file that is not there yet",
                      "one that is", "choose another, or remove it")
    check.require(path.parent.is_dir(), f"--out {path}", "a file in a folder that is there",
                  "none", f"make the folder {path.parent}")
    return path


def _written(path: Path, finish: Callable[[Path], Any]) -> Any:
    """What `finish(partial)` returns; file and card get their names once it has made both."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
        try:
            found = finish(folder / path.name)
            os.replace(card.of(folder / path.name), card.of(path))
            os.replace(folder / path.name, path)
            return found
        except BaseException:
            if not path.exists():
                card.of(path).unlink(missing_ok=True)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise check.CheckpointError(check.sentence(
            str(path), "a place to write", error, "free space there or choose another --out"
        )) from error


def _one_domain(params: Params, stats: Stats, domain: int) -> tuple[Params, Stats]:
    """The same network with one BatchNorm set: what has running statistics keeps a row, [1, D]."""
    leaves = tree.flatten(stats)
    layers = {path.rpartition("/")[0] for path in leaves}
    domains = min((len(leaf) for leaf in leaves.values()), default=1)
    check.require(0 <= domain < domains, "--domain", f"a BatchNorm set, 0 to {domains - 1}", domain,
                  "name a domain of the run's views")

    def cut(path, leaf):
        return leaf[domain : domain + 1] if path.rpartition("/")[0] in layers else leaf

    return tree.map_with_path(cut, params), tree.map_with_path(cut, stats)


def _rows(image: jax.Array) -> Rows:
    none = jnp.zeros(image.shape[:1], jnp.int32)
    return plain(Batch(image, none, none))


def _taking(predict: Callable[..., jax.Array], image_shape: tuple[int, ...]) -> Forward:
    def forward(pixels):
        check.require(np.shape(pixels)[1:] == image_shape, "pixels",
                      ["b", *image_shape], list(np.shape(pixels)), "cut or resize the images")
        return predict(jnp.asarray(pixels, jnp.float32))

    return forward


def _broken(path: Path, format: str, error: Exception) -> check.DataError:
    return check.DataError(check.sentence(
        str(path), f"a whole {format} file of augjax", repr(error)[:200], FETCH))


# --- stablehlo -----------------------------------------------------------------------------------


def _write_stablehlo(network_: Deployed, path: Path) -> None:
    """A program of `jax.export` over float32 pixels, which hold every uint8; weights inside."""
    net, variables = network(network_.model), (network_.params, network_.stats)

    def logits(image):  # [b, H, W, C] float32, 0..255 -> [b, K] float32
        return net.predict(variables, _rows(image), 0).logits.astype(jnp.float32)

    sides = ", ".join(map(str, network_.image_shape))
    image = jax.ShapeDtypeStruct(jax_export.symbolic_shape(f"b, {sides}"), jnp.float32)
    path.write_bytes(jax_export.export(jax.jit(logits), platforms=PLATFORMS)(image).serialize())


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
        net = network(json.loads(described["model"]))
        image_shape = tuple(json.loads(described["image_shape"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, "safetensors", error) from error
    params, stats = jax.eval_shape(net.init, jax.random.key(0))
    whole = {"params": params, "batch_stats": stats}
    wanted = {name: Tensor(leaf.shape, leaf.dtype.name)
              for name, leaf in tree.flatten(whole).items()}
    wrong = sorted(name for name in {*wanted, *found.tensors}
                   if wanted.get(name) != found.tensors.get(name))
    check.require(not wrong, f"{path}", "the tensors of its model",
                  f"{len(wrong)} that differ: {', '.join(wrong[:3])}", FETCH, check.DataError)
    arrays = dict(found.read(wanted))
    loaded = tree.map_with_path(lambda name, _: arrays[name], whole)
    predict = jax.jit(lambda variables, image: net.predict(variables, _rows(image), 0).logits)
    return _taking(lambda image: predict((loaded["params"], loaded["batch_stats"]), image),
                   image_shape)


FORMATS: dict[str, tuple[Callable[[Deployed, Path], None], Callable[[Path], Forward]]] = {
    "stablehlo": (_write_stablehlo, _load_stablehlo),
    "safetensors": (_write_safetensors, _load_safetensors),
}

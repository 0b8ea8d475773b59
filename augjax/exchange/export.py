"""A trained network leaves the house: one file that takes pixels, run again before it is kept.

What leaves is what the network computes with: masks and quantisers applied, one BatchNorm set.
Resize and normalisation are inside; the batch may have any size.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

import jax
import numpy as np

from augjax import check, data, tree
from augjax.exchange import card, formats
from augjax.exchange.formats import Deployed, FORMATS, Forward, of_one_set, rows_of
from augjax.train import files, make_mesh, Recipe, Source, start
from augjax.train.phases import saved_step
from augjax.types import Params, Stats

TOLERANCE = 1e-4  # of the largest |logit|: how far a file may be from its run folder
BATCHES = "perhaps bfloat16 or a quantised activation rounds otherwise in a batch of another size"
ROUNDED = {"onnx": "perhaps a quantised activation next to a level rounds otherwise in "
                   "onnxruntime; --format=stablehlo and --format=safetensors are run by XLA, as "
                   "the run folder is"}


def export(source: Source, recipe: Recipe, model: Mapping[str, Any], path: str | Path, format: str,
           domain: int = 0, data_note: str = "") -> dict[str, Any]:
    """Writes a trained network to `path` and a card beside it; returns what was measured.

    Args:
      source: a phase that is finished, in a run folder (`run` must be given).
      recipe: of that run folder, for its data and phases.
      model: what `network` builds the source's learner from, with all its BatchNorm sets or one.
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
    formats.require_extra(format)
    phase = source.origin or recipe.phase(source.phase)
    finished = card.read(source.run, "summary.json").get("phases", {})
    check.require(phase.name in finished, f"phase {phase.name!r} of {source.run}",
                  f"one of its finished phases {sorted(finished)}", "one that is not finished",
                  "train it to its end first", check.CheckpointError)
    source = replace(source, step=saved_step(source, source.run))
    trained = start.read(source, recipe, files.place(source.run), make_mesh(jax.devices()[:1]))
    net, apply = phase.objective.nets[source.learner], phase.objective.transform.apply
    seen = jax.tree.map(np.asarray, apply(trained[0], trained[2])[source.learner])
    model = of_one_set(model, domain)
    leaving = Deployed(model, recipe.data.image_shape, recipe.data.class_names,
                       *_one_domain(seen, trained[1], domain))

    @jax.jit
    def here(params, stats, state, image):
        return net.predict((apply(params, state)[source.learner], stats), rows_of(image), domain
                           ).logits

    def finish(partial: Path) -> dict[str, Any]:
        write(leaving, partial)
        found = compared(read(partial), lambda image: here(*trained, image), recipe.data.test,
                         phase.evaluate_batch, format, model)
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
    return formats.load(path)


def compared(forward: Forward, reference: Forward, images: data.Source, batch_size: int,
             format: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """{images, batch_size, accuracy, top5_accuracy, difference, largest_logit} of a file.

    `difference` is max|logit - that of the reference|, over images by themselves and in batches.
    Raises NumericsError where it is above TOLERANCE x the largest |logit| or a prediction differs;
    for a `model` with quantised activations or in bfloat16 it says where that may come from.
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
    coarse = model.get("activation_bits", 32) < 32 or model.get("dtype", "float32") != "float32"
    check.require(
        changed == 0 and worst <= TOLERANCE * largest,
        f"the exported file, run on all {len(images)} test images, each by itself and in batches "
        f"of {batch_size}", "the run folder's predictions, and logits within "
        f"{TOLERANCE * largest:.2g} ({TOLERANCE:g} of the largest)",
        f"{changed} of {2 * len(images)} predictions that differ, and logits by up to {worst:.2g}",
        f"nothing was kept{f': {ROUNDED.get(format, BATCHES)}' if coarse else ''}",
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

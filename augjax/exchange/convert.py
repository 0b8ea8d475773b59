"""From a file of other people's weights to our network: every tensor exactly once, or a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from augjax import check, models, tree
from augjax.data import Dataset, described, load, prepared, records
from augjax.data.named import FACTS, OF_ANY_SIZE
from augjax.exchange import names, sources
from augjax.exchange.weights import EXACT, open_weights, sha256, Weights
from augjax.types import Params, Stats

IGNORED = "num_batches_tracked"  # PyTorch counts its updates; nothing reads it
OWN = "--data=NAME --data_dir=DIR, DIR being the folder given to launch.prepare"
ROWS = 20  # of a table of differences; the rest is counted


@dataclass(frozen=True)
class Converted:
    """A network taken in: what a config's model block says, its variables, and where it is from."""

    model: Mapping[str, Any]  # name, mean, std, image_size and options, as `defaults.model` takes
    data: str
    classes: int
    class_names: tuple[str, ...]  # in the order of the logits; () where no folder told them
    image_shape: tuple[int, int, int]  # of the data set
    cut: int  # pixels a side that are cut out of its images; 0: all have one size
    params: Params  # float32 NumPy arrays
    stats: Stats
    origin: Mapping[str, Any]  # source, model, file, bytes, sha256


def convert(
    source: str,
    model: str,
    weights: str | Path,
    data: str | None = None,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    image_size: int = 0,
    data_dir: str | Path | None = None,
) -> Converted:
    """Takes in the tensors of `weights` as our network.

    Args:
      source: timm, torchvision, repdistiller or flax.
      model: its name there, a row of `sources.SOURCES`.
      weights: a .safetensors file; for flax a msgpack file or an Orbax folder.
      data: the data set that it tells apart; by default the one that the source trained on.
      mean, std: per channel, of pixels / 255; by default those of the source.
      image_size: pixels a side that it sees; by default the model's own.
      data_dir: where `launch.prepare` put that data set; asked for one that augjax does not know,
        whose classes and their names, in its order, are those of the logits.

    Raises ConfigError for wrong names and numbers, DataError for a data set that is not in
    `data_dir` and for a file that is broken, holds a pickle, numbers that are not finite or
    another model's tensors. Nothing is written.
    """
    foreign, path = sources.find(source, model), Path(weights).expanduser()
    data = data or foreign.data
    for flag, given in (("--mean", mean), ("--std", std)):
        check.require(len(given) in (0, 3), flag, "three numbers", given, "separate them by commas")
    check.require(image_size >= 0, "--resolution", "pixels a side", image_size, "leave it out")
    block = {
        "name": foreign.ours, "mean": tuple(mean or foreign.statistics[0]),
        "std": tuple(std or foreign.statistics[1]),
        "image_size": image_size or foreign.resolution, **foreign.options,
    }
    size = block["image_size"]
    convention = names.FLAX if source == "flax" else names.TORCH
    found = open_weights(path, source)
    if data in FACTS:  # before its images are looked for: those told apart may be others
        _check_head(found, foreign, convention, data, FACTS[data][0])
    known, cut = _told_apart(data, data_dir, size)
    _check_head(found, foreign, convention, data, known.classes)
    net = models.build(foreign.ours, known.classes, (size, size, 3), block["mean"], block["std"],
                       **foreign.options)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    params, stats = _read(found, shapes, foreign.rules, convention, f"{source}'s {model}")
    size = sum(part.stat().st_size for part in [path, *path.rglob("*")] if part.is_file())
    origin = {"source": source, "model": model, "file": str(path), "bytes": size,
              "sha256": sha256(path)}
    return Converted(block, data, known.classes, known.class_names if data_dir else (),
                     known.image_shape, cut, params, stats, origin)


def differences(tensors: Mapping[str, Any], shapes: Any, rules: names.Rules,
                convention: names.Convention) -> list[tuple[str, str, str]]:
    """[(tensor, what was expected, what came)] between a file's tensors and what a model needs.

    `tensors` are {name: weights.Tensor}, `shapes` our (params, stats) of ShapeDtypeStructs.
    """
    wanted = {}
    leaves = {**tree.flatten(shapes[0]), **tree.flatten(shapes[1])}
    for path, name in names.their_names(list(leaves), rules, convention).items():
        wanted[name] = convention.shape(path.rsplit("/", 1)[1], leaves[path].shape)
    rows = []
    for name, shape in wanted.items():
        came = tensors.get(name)
        if came is None:
            rows.append((name, _said(shape), "missing"))
        elif came.shape != shape or came.dtype not in EXACT:
            rows.append((name, _said(shape), _said(came.shape, came.dtype)))
    for name, came in tensors.items():
        if name not in wanted and not name.endswith(IGNORED):
            rows.append((name, "nothing of this name", _said(*came)))
    return sorted(rows)


# --- the data set --------------------------------------------------------------------------------


def _told_apart(name: str, data_dir: str | Path | None, size: int) -> tuple[Dataset, int]:
    """(the data set, pixels a side that are cut out of its images, or 0 where all have one size).

    Without a folder its images are missing, and its classes have numbers for names.
    """
    if name in FACTS:
        of_any_size = name in OF_ANY_SIZE
    elif data_dir:
        folder = prepared.prepared_folder(name, data_dir)
        of_any_size = None in records.open_split(folder, "train").image_shape
    else:
        try:
            check.one_of("data set", name, FACTS)
        except check.ConfigError as error:
            raise check.ConfigError(f"{error} One of your own: {OWN}.") from None
    cut = size if of_any_size else 0
    found = load(name, data_dir, image_size=cut or None) if data_dir else described(name, cut)
    return found, cut


# --- checks --------------------------------------------------------------------------------------


def _said(shape: tuple[int, ...], dtype: str = "float32") -> str:
    return f"{dtype} {list(shape)}"


def _check_head(found: Weights, foreign: sources.Foreign, convention: names.Convention, data: str,
                classes: int) -> None:
    """The head's classes are the data set's; where there is no such head the table will say so."""
    name = names.their_name("head/kernel", foreign.rules, convention)
    head = found.tensors.get(name)
    if head is not None and len(head.shape) == 2:
        theirs = convention.shape("kernel", head.shape)[1]  # its own inverse for two axes
        check.require(theirs == classes, f"{found.path}, {name}", f"{classes} classes, as {data} "
                      "has", theirs, "name the data set that it tells apart with --data, one of "
                      f"your own with {OWN}", check.DataError)


def _read(found: Weights, shapes: Any, rules: names.Rules, convention: names.Convention, what: str
          ) -> tuple[Params, Stats]:
    """(params, stats) in float32; numbers are read only once every shape is right."""
    _refuse(differences(found.tensors, shapes, rules, convention), found.path,
            f"the tensors of {what}", "take that model's file, or name the model that it is of")
    ours = {**tree.flatten(shapes[0]), **tree.flatten(shapes[1])}
    paths = {name: path
             for path, name in names.their_names(list(ours), rules, convention).items()}
    arrays, wrong = {}, []
    for name, array in found.read(paths):
        path = paths[name]
        array = np.asarray(array, np.float32)
        if bad := int(np.count_nonzero(~np.isfinite(array))):
            wrong.append((name, "finite numbers", f"{bad} of {array.size} are not"))
        elif path.endswith("/var") and array.min() < 0:
            wrong.append((name, "variances from 0 on", f"{array.min()}"))
        arrays[path] = np.ascontiguousarray(convention.array(array, ours[path].shape))
    _refuse(wrong, found.path, "numbers that a network can compute with", "fetch the file again")
    return tuple(tree.map_with_path(lambda path, _: arrays[path], part) for part in shapes)


def _refuse(rows: list[tuple[str, str, str]], path: Path, expected: str, fix: str) -> None:
    """DataError with the rows as a table, if there are any."""
    if not rows:
        return
    shown = (tuple(ascii(cell)[1:-1][:80] for cell in row) for row in rows[:ROWS])
    table = [("tensor", "expected", "came"), *shown]  # whatever a file calls its tensors
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
             for row in table]
    if len(rows) > ROWS:
        lines.append(f"and {len(rows) - ROWS} more")
    said = check.sentence(f"{path}", expected, f"{len(rows)} that differ", fix)
    raise check.DataError("\n".join([said, *lines]))

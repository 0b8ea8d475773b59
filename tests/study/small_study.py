"""Studies small enough to be trained in seconds, and runs that were never trained at all."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from augjax import defaults, recipe, study
from augjax.train import folder


def training(**changes) -> ConfigDict:
    """Three steps an epoch of a tiny network on 8-pixel digits."""
    fields = {
        "model": defaults.model("resnet8_tiny"), "batch_size": 32, "epochs": 1.0,
        "views": {"train": defaults.view("crop", pad=1)},
        "optimizer": defaults.optimizer(learning_rate=0.05)}
    return defaults.config(
        phases={"student": defaults.phase(**{**fields, **changes})},
        data={"name": "digits", "limit": 96, "image_size": 8},
        log={"every_steps": 1}, checkpoint={"every_epochs": 0.3})


def taught(source: str = "row:plain") -> ConfigDict:
    """The same, distilled from another row."""
    return training(teacher=source, terms={
        "ce": defaults.term("cross_entropy", 0.1), "kd": defaults.term("hinton", 0.9)})


def config(rows=None, **changes) -> ConfigDict:
    """Two rows, the second taught by the first, unless told otherwise; the taught one is listed
    first, so that order of need is not order of writing."""
    fields = {"seeds": (0, 1), "scale": "tiny"} | changes
    return defaults.study("A study", rows or {"kd": taught(), "plain": training()}, **fields)


def get_config(arg: str = "taught") -> ConfigDict:
    """For launch.study: --config=tests/study/small_study.py:nan."""
    wild = training(optimizer=defaults.optimizer(learning_rate=1e30))
    rows = {"taught": None, "nan": {"wild": wild, "plain": training(epochs=0.3)}}[arg]
    return config(rows, seeds=(0,))


def phases_of(row) -> tuple[str, ...]:
    return tuple(recipe.expanded(ConfigDict(row)))


def planned(made: ConfigDict | None = None, **changes) -> study.Study:
    return study.parse(json.loads((made or config(**changes)).to_json()), phases_of)


def build(block):
    return recipe.build(ConfigDict(block))


def pretend(workdir: Path, of: study.Study, run: str, accuracy: float, classes: int = 10,
            hardware: str = "1 x cpu, 2 cores", hours: float = 0.5, best: float | None = None
            ) -> Path:
    """Leaves what launch.train would have left of a run that ended with `accuracy`."""
    made = of.run(run)
    place = study.folder_of(workdir, made)
    place.mkdir(parents=True, exist_ok=True)
    facts = {"final_accuracy": accuracy, "best_accuracy": best or accuracy, "best_step": 3,
             "top5_accuracy": min(1.0, accuracy + 0.2), "steps": 3, "device_hours": hours,
             "parameters": 100, "nonzero": 40, "sparsity": 0.6, "bits": 32}
    folder.write_json(place / "config.json", study.config_of(of, made, workdir))
    folder.write_json(place / "data.json", {
        "name": "digits", "classes": classes, "image_shape": [8, 8, 3],
        "images": {"train": 96, "test": 360}})
    folder.write_json(place / "provenance.json", {
        "starts": [{"versions": {"jax": "0.10.2"}, "git_commit": "abc"}], "config_source": ""})
    folder.write_json(place / "summary.json", {
        "data": "digits", "seed": made.seed, "hardware": hardware,
        "phases": {phase: facts for phase in of.rows[made.row].phases}})
    rows = [{"phase": phase, "kind": kind, "step": 3, "epoch": 1.0, "accuracy": accuracy}
            for phase in of.rows[made.row].phases for kind in ("train", "eval")]
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for phase in of.rows[made.row].phases:
        save = place / "checkpoints" / phase / "3"
        save.mkdir(parents=True, exist_ok=True)
        folder.write_json(save / "digests.json", {})
    return place


def timeless(table):
    """A table without the fields in which equal studies may differ."""
    if isinstance(table, dict):
        return {name: timeless(value) for name, value in table.items()
                if name not in study.TIME_FIELDS}
    return [timeless(value) for value in table] if isinstance(table, list) else table

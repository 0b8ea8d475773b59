"""What came of a run: summary.json and the table that people read."""

from collections.abc import Mapping
import hashlib
import json
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp

from augjax import tree
from augjax.data import Dataset
from augjax.train import files, folder, metrics
from augjax.train.phases import Phase, Recipe
from augjax.train.state import TrainState


def describe(recipe: Recipe) -> dict[str, Any]:
    """A recipe made in Python as plain data, for config.json; it names, it cannot rebuild."""
    phases = {
        phase.name: {
            "epochs": phase.epochs, "batch_size": phase.batch_size,
            "accumulate": phase.accumulate,
            "terms": sorted(phase.objective.terms), "nets": sorted(phase.objective.nets),
            "init": {name: str(source) for name, source in phase.init.items()},
            "frozen": {name: str(source) for name, source in phase.frozen.items()},
        }
        for phase in recipe.phases
    }
    return {"made_in": "python", "data": {"name": recipe.data.name}, "seed": recipe.seed} | phases


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """What another run needs to know of this one's data, without having them, and the SHA-256 of
    each split's labels in their order, to know the data again."""
    splits = {name: split for name in ("train", "test", "holdout")
              if (split := getattr(dataset, name)) is not None}
    return {
        "name": dataset.name, "classes": dataset.classes, "class_names": list(dataset.class_names),
        "image_shape": list(dataset.image_shape),
        "images": {name: len(split) for name, split in splits.items()},
        "labels_sha256": {name: hashlib.sha256(split.labels.tobytes()).hexdigest()
                          for name, split in splits.items()},
    }


def facts(phase: Phase, state: TrainState) -> dict[str, Any]:
    """Size of the network that a phase ends with, as it would be deployed."""
    learner = phase.objective.learners[0]

    @jax.jit
    def nonzero(nets, transform):
        weights = tree.flatten(phase.objective.transform.apply(nets, transform)[learner])
        return {path: jnp.count_nonzero(leaf) for path, leaf in weights.items()}

    counts = {path: int(n) for path, n in nonzero(state.params["nets"], state.transform).items()}
    leaves = tree.flatten(state.params["nets"][learner])
    kernels = [path for path, leaf in leaves.items() if leaf.ndim >= 2 and path.endswith("kernel")]
    prunable = sum(leaves[path].size for path in kernels)
    left = sum(counts[path] for path in kernels)
    layers = {path: round(1 - counts[path] / leaves[path].size, 6) for path in kernels}
    return {
        "parameters": sum(leaf.size for leaf in leaves.values()),
        "nonzero": sum(leaf.size for leaf in leaves.values()) - prunable + left,
        "sparsity": round(1 - left / prunable, 6) if prunable else 0.0,
        **({"layer_sparsity": layers} if left < prunable else {}),  # a global prune may empty one
        "bits": int(tree.flatten(state.transform).get("dorefa/bits", 32)),
    }


def write(recipe: Recipe, workdir: Path) -> dict[str, Any]:
    """Writes summary.json from the rows and events in the run folder, and returns it."""
    rows = metrics.read(workdir)
    events = metrics.read_events(workdir)
    phases = {}
    for phase in recipe.phases:
        mine = [row for row in rows if row["phase"] == phase.name]
        done = [e for e in events if e["event"] == "phase done" and e["phase"] == phase.name]
        if done and any(row["kind"] == "eval" for row in mine):
            started = [e for e in events if e["event"] == "phase" and e["phase"] == phase.name]
            own = _phase_summary(mine, done[-1], started, phase)
            phases[phase.name] = own | _frozen(workdir, phase)
    content = {"data": recipe.data.name, "seed": recipe.seed, "hardware": folder.hardware(),
               "phases": phases}
    folder.write_json(files.place(workdir) / "summary.json", content)
    return content


def _phase_summary(rows: list, done: Mapping, started: list, phase: Phase) -> dict[str, Any]:
    evaluations = [row for row in rows if row["kind"] == "eval"]
    training = [row for row in rows if row["kind"] == "train"]
    last = evaluations[-1]
    best = max(evaluations, key=lambda row: row["accuracy"])
    seconds = sum(row["seconds"] for row in training)
    images = last["step"] * phase.batch_size * done.get("members", 1)  # of a search, those of all
    return {
        "final_accuracy": last["accuracy"],
        "best_accuracy": best["accuracy"],
        "best_step": best["step"],
        "top5_accuracy": last["top5_accuracy"],
        **{k: last[k] for k in ("holdout_accuracy", "ema_accuracy", "ema_holdout_accuracy")
           if k in last},
        "steps": last["step"],
        "images_per_s": round(images / max(seconds, 1e-9), 1),
        "step_images_per_s": round(median(row["images_per_s"] for row in training), 1),
        "compile_s": round(sum(event["compile_s"] for event in started), 2),
        "device_hours": round(
            sum(row["seconds"] * _devices(row, started) for row in rows) / 3600, 5),
        **{name: done[name] for name in (
            "parameters", "nonzero", "sparsity", "layer_sparsity", "bits") if name in done},
        **(_branches(phase, last, training[-1]) if phase.branches else {}),
    }


def _devices(row: Mapping[str, Any], started: list) -> int:
    """How many devices the start of the phase had that wrote a row: the last that began before."""
    starts = [event for event in started if event["step"] < row["step"]]
    return starts[-1].get("devices", 1) if starts else 1


def _branches(phase: Phase, last: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Every branch by its last evaluation, and the one that held-out images select, if there are
    any: the highest accuracy on them, of equal ones the first. `told` is the last training row."""
    logged = {**told, **last}
    fields = {"accuracy": "branch{}_accuracy", "holdout_accuracy": "holdout_branch{}_accuracy",
              "weight": "ensemble_weight_{}"}
    branches = [
        {"learner": learner, "domain": domain} | {
            field: logged[name.format(number)] for field, name in fields.items()
            if name.format(number) in logged}
        for number, (learner, domain) in enumerate(phase.branches.asked)]
    found = {"branches": branches} | {
        name: last[name] for name in ("ensemble_accuracy",) if name in last}
    if "holdout_accuracy" in last:
        selected = max(range(len(branches)), key=lambda i: branches[i]["holdout_accuracy"])
        found |= {"selected_branch": selected} | {
            f"selected_{field}": branches[selected][field]
            for field in ("accuracy", "holdout_accuracy")}
    return found


def _frozen(workdir: Path, phase: Phase) -> dict[str, Any]:
    path = files.place(workdir) / "checkpoints" / phase.name / "frozen.json"
    if not phase.frozen or not files.exists(path):
        return {}
    return {"frozen": json.loads(files.read_text(path))}


def table(summary: Mapping[str, Any]) -> str:
    """The summary as a text table: phase, test accuracy, parameters left, images/s."""
    head = ("phase", "test accuracy", "parameters left", "images/s")
    lines = [
        (name, f"{p['final_accuracy']:.2%}", f"{p['nonzero']:,} of {p['parameters']:,}",
         f"{p['images_per_s']:,.0f}")
        for name, p in summary["phases"].items()
    ]
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
    rule = "  ".join("-" * width for width in widths)
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
            for line in (head, *lines)]
    return "\n".join([rows[0], rule, *rows[1:]])

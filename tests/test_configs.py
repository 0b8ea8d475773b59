"""Every shipped config is traced at full size; its tiny form takes two real steps."""

from dataclasses import replace
import importlib.util
import json
import os
from pathlib import Path

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest

from augjax import data, recipe, study, train
from augjax.train import sharding, start

ROOT = Path(__file__).resolve().parents[1]
ARGUMENTS = [
    ("cifar/thrives_views.py", "pair=all,teacher=converted"),
    ("cifar/compression_layers.py", "network=mobilenetv2,head=reinit"),
    ("cifar/compression_inherit.py", "network=shufflenetv2,dataset=cifar10"),
    ("cifar/compression_decay.py", "scale=small,retrain=full"),
    ("cifar/role_wise_bits.py", "network=alexnet"),
    ("cifar/outliers_autoaugment.py", "network=pyramidnet_272_200"),
    ("cifar/a2_ablations.py", "scale=small,part=evidence"),
    ("imagenet/a2.py", "part=ablations,network=resnet200"),
    ("imagenet/a2.py", "part=scales"),
    ("imagenet/outliers.py", "part=table3"),
    ("imagenet/efficientnet.py", "b8,teacher=b7"),
]
FILES = sorted(path for path in (ROOT / "configs").rglob("*.py") if path.name != "__init__.py")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trainings(config, rows=None):
    """What a config trains: itself, or the rows of a study, each with what it needs before it."""
    if "rows" not in config:
        return [config]
    planned = study.parse(json.loads(config.to_json()),
                          lambda row: tuple(recipe.expanded(ConfigDict(row))))
    return [named(planned.joined(run)) for run in planned.runs
            if run.row in (rows or planned.rows) and run.seed == 0]


def named(joined):
    """A joined config whose phases may be folders: "teacher/0/teacher" becomes one word."""
    text = json.dumps(joined)
    for name in joined["phases"]:
        text = text.replace(name, name.replace("/", "-"))
    return ConfigDict(recipe.as_if_searched(json.loads(text)))


def full_size(config):
    like = data.described(config.data.name, config.data.image_size or None)
    return recipe.build(config, like)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_row_is_built_and_the_last_traced_at_full_size(path):
    """To trace all takes minutes: `AUGJAX_TRACE=all` does, by hand when networks have changed."""
    wholes = [full_size(config) for config in trainings(load(path).get_config())]
    mesh, traced = sharding.make_mesh(jax.devices()[:1]), set()
    for whole in wholes if os.environ.get("AUGJAX_TRACE") == "all" else wholes[-1:]:
        for phase in whole.phases:
            if phase.structure not in traced:
                shapes = start.shapes(phase, whole, mesh)
                assert shapes.signals.outputs["student"].logits.shape[1] == whole.data.classes
            traced.add(phase.structure)


@pytest.mark.parametrize("path, arg", ARGUMENTS)
def test_other_arguments_are_built(path, arg):
    assert trainings(load(ROOT / "configs" / path).get_config(arg))


def noise(config):
    """As much noise as a tiny config asks for, in the shape of its data."""
    like = data.described(config.data.name, config.data.image_size or None)
    images = np.random.default_rng(0).integers(
        0, 256, (config.data.limit, *like.image_shape), np.uint8)
    split = data.from_arrays(like.name, images, np.arange(len(images)) % like.classes,
                             like.class_names)
    return replace(like, train=split, test=split)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_says_claim_command_data_and_what_was_measured(path):
    text = load(path).__doc__
    for word in ("Claim", "Command", "Cost", "Measured"):
        assert word in text, f"{path} does not state its {word.lower()}"


@pytest.mark.parametrize("path, arg, row", [
    ("cifar/distillation.py", "scale=tiny", "kd_pick"),
    ("cifar/outliers_magnitude.py", "scale=tiny", "ra_1"),
    ("cifar/thrives_views.py", "scale=tiny", "resnet56-resnet20-ce_cutmix"),
])
def test_tiny_form_takes_two_steps(tmp_path, path, arg, row):
    (config,) = trainings(load(ROOT / "configs" / path).get_config(arg), [row])
    summary = train.run(recipe.build(config, noise(config)), tmp_path, devices=jax.devices()[:1])
    assert summary["phases"]["student"]["steps"] == 2

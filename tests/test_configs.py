"""Every shipped config is traced at full size; its tiny form takes two real steps."""

from dataclasses import replace
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from augjax import data, recipe, train
from augjax.train import sharding, start

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for path in (ROOT / "configs").rglob("*.py") if path.name != "__init__.py")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_traces_at_full_size(path):
    config = load(path).get_config()
    whole = recipe.build(config, data.described(config.data.name, config.data.image_size or None))
    mesh = sharding.make_mesh(jax.devices()[:1])
    for phase in whole.phases:
        shapes = start.shapes(phase, whole, mesh)
        assert shapes.signals.outputs["student"].logits.shape[1] == whole.data.classes


def noise(config):
    """As much noise as a tiny config asks for, in the shape of its data."""
    like = data.described(config.data.name, config.data.image_size or None)
    images = np.random.default_rng(0).integers(
        0, 256, (config.data.limit, *like.image_shape), np.uint8)
    split = data.from_arrays(like.name, images, np.arange(len(images)) % like.classes,
                             like.class_names)
    return replace(like, train=split, test=split)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_says_claim_command_data_and_what_was_measured(path):
    text = load(path).__doc__
    for word in ("Claim", "Command", "Cost", "Measured"):
        assert word in text, f"{path} does not state its {word.lower()}"


@pytest.mark.parametrize("path, arg", [
    ("cifar/resnet20.py", "scale=tiny"),
    ("imagenet/efficientnet.py", "b0,scale=tiny"),
])
def test_tiny_form_takes_two_steps(tmp_path, path, arg):
    config = load(ROOT / "configs" / path).get_config(arg)
    summary = train.run(recipe.build(config, noise(config)), tmp_path, devices=jax.devices()[:1])
    assert summary["phases"]["student"]["steps"] == 2

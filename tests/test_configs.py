"""Every shipped config is traced at full size; its tiny form takes two real steps."""

from dataclasses import replace
import importlib.util
from pathlib import Path

import jax
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


def built(config):
    """The recipe of a config, on noise of the right shape where its data are not at hand."""
    shape, classes = {"digits": ((16, 16, 3), 10), "cifar10": ((32, 32, 3), 10),
                      "cifar100": ((32, 32, 3), 100)}[config.data.name]
    images = jax.numpy.zeros((classes * 4, *shape), "uint8")
    labels = [number % classes for number in range(len(images))]
    split = data.from_arrays(config.data.name, images, labels, [str(k) for k in range(classes)])
    phases = recipe.build_phases(
        recipe.expanded(config), recipe.Pictures(config.data.name, classes, shape))
    dataset = data.Dataset(config.data.name, split.class_names, shape, split, split)
    return train.Recipe(phases, dataset)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_traces_at_full_size(path):
    whole = built(load(path).get_config())
    mesh = sharding.make_mesh(jax.devices()[:1])
    for phase in whole.phases:
        one_epoch = replace(phase, batch_size=min(phase.batch_size, len(whole.data.train)))
        assert start.shapes(one_epoch, whole, mesh).signals.outputs["student"].logits.shape[1] \
            == whole.data.classes


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_says_claim_command_data_and_what_was_measured(path):
    text = load(path).__doc__
    for word in ("Claim", "Command", "Cost", "Measured"):
        assert word in text, f"{path} does not state its {word.lower()}"


def test_tiny_form_takes_two_steps(tmp_path):
    whole = built(load(ROOT / "configs/cifar/resnet20.py").get_config("scale=tiny"))
    summary = train.run(whole, tmp_path, devices=jax.devices()[:1])
    assert summary["phases"]["student"]["steps"] == 2

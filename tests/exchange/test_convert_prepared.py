"""A network of one's own classes: it is taken in with the prepared images that it tells apart."""

import json
from pathlib import Path
import shlex
import sys

from absl import flags
import jax
import pytest
import tensorflow_datasets as tfds
from test_convert import command
from weight_files import tensors_of, written

from augjax import check, exchange, recipe
from augjax.prepare import prepare
from augjax.train import sharding, start
from augjax.train.phases import check_recipe
from launch import common, config_file
from prepare.image_maker import example, flower_files, scan, tfds_folder, write_tree

ROOT = Path(__file__).resolve().parents[2]
NAMES, SIZE = ("aster", "iris", "rose"), 32


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A data_dir: photos of three classes and several sizes, and scans, all of 8 x 8."""
    folder, images = tmp_path_factory.mktemp("own"), tfds.features
    prepare(write_tree(folder / "in", flower_files()), folder / "sets", dataset="photos")
    features = {"image": images.Image(shape=(8, 8, 3)), "label": images.ClassLabel(names=NAMES)}
    scans = [example(number % 3, scan(number)) for number in range(6)]
    prepare(tfds_folder(folder / "scans/1.0.0", features, {"train": [scans], "test": [scans[:3]]}),
            folder / "sets")
    return folder / "sets"


def file_of(folder, source="torchvision", model="resnet18", classes=3):
    return written(folder / "w.safetensors", tensors_of(model, source, classes=classes, size=SIZE))


@pytest.fixture(scope="module")
def taken(sets, tmp_path_factory):
    """(run folder, what the command printed): torchvision's resnet18 of the photos, drawn."""
    folder = tmp_path_factory.mktemp("taken")
    done = command(
        "launch.convert", "--source=torchvision", "--model=resnet18", "--data=photos",
        f"--data_dir={sets}", f"--weights={file_of(folder)}", f"--resolution={SIZE}",
        f"--workdir={folder / 'run'}")
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


@pytest.mark.parametrize("source, model, data, cut, shape", [
    ("torchvision", "resnet18", "photos", SIZE, (SIZE, SIZE, 3)),
    ("timm", "resnet18.a1_in1k", "photos", SIZE, (SIZE, SIZE, 3)),
    ("torchvision", "resnet18", "scans", 0, (8, 8, 3)),
])
def test_classes_are_those_of_the_prepared_set(sets, tmp_path, source, model, data, cut, shape):
    path = file_of(tmp_path, source, model)
    converted = exchange.convert(source, model, path, data, image_size=SIZE, data_dir=sets)
    assert (converted.data, converted.class_names, converted.classes) == (data, NAMES, 3)
    assert (converted.cut, converted.image_shape) == (cut, shape)
    assert converted.params["head"]["kernel"].shape == (512, 3)


def test_the_command_measures_and_evaluate_agrees(sets, taken):
    workdir, told = taken
    summary = json.loads((workdir / "summary.json").read_text())["phases"][exchange.PHASE]
    assert summary["probe_images"] == 6  # all of the photos' test images
    assert f"top-1 {summary['probe_accuracy']:.2%}" in told and "3 classes (photos)" in told
    assert "sees 32x32 pixels, mean (0.485, 0.456, 0.406)" in told
    facts = json.loads((workdir / "data.json").read_text())
    assert facts == {"name": "photos", "classes": 3, "class_names": list(NAMES),
                     "image_shape": [SIZE, SIZE, 3]}
    again = command("launch.evaluate", f"--workdir={workdir}", f"--data_dir={sets}")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[0])["accuracy"] == summary["probe_accuracy"]


def test_the_example_of_a_teacher_teaches(sets, taken, tmp_path, monkeypatch):
    """The command at the end of the help, but for its folders and a smaller student."""
    help = (ROOT / "launch/convert.py").read_text().split('"""')[1].replace("\\\\\n", "")
    words = shlex.split(help.rpartition("python -m launch.train ")[2])
    for what, place in (("run:DIR", f"run:{taken[0]}"), ("dir=DATA", f"dir={sets}"),
                        ("resnet20.py", "resnet20.py:scale=tiny")):
        (found,) = (number for number, word in enumerate(words) if word.endswith(what))
        words[found] = words[found].replace(what, place)
    words = ["command", *(word for word in words if not word.startswith("--workdir")),
             "--config.data.limit=0", "--config.student.model.name=resnet8_tiny"]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())
    monkeypatch.setattr(sys, "argv", words)
    config = config_file.flag("config", "")
    common._parse(words, ())
    assert sorted(block.kind for block in config.value.student.terms.values()) == [
        "cross_entropy", "hinton"]
    built, mesh = recipe.build(config.value), sharding.make_mesh(jax.devices()[:1])
    check_recipe(built, mesh)
    seen = start.shapes(built.phases[0], built, mesh).signals  # with both terms evaluated
    assert seen.outputs["teacher"].logits.shape == (16, 3)
    params, _ = start.freeze(built.phases[0], built, tmp_path, mesh)["teacher"]
    assert params["head"]["kernel"].shape == (512, 3)


def test_what_is_not_known_names_the_folder_to_give(sets, tmp_path):
    def refused(error, *parts, data=None, data_dir=None):
        with pytest.raises(error) as caught:
            exchange.convert("torchvision", "resnet18", path, data, data_dir=data_dir)
        for part in parts:
            assert part in str(caught.value)

    path = file_of(tmp_path)
    refused(check.DataError, "expected 1000 classes, as imagenet2012 has, got 3", "--data=NAME",
            "--data_dir=DIR", "launch.prepare")
    refused(check.ConfigError, "got 'photos'", "--data_dir=DIR", "launch.prepare", data="photos")
    refused(check.ConfigError, "got 'cifar'", "Did you mean 'cifar10'", data="cifar")
    refused(check.DataError, "photos, scans", data="flowers", data_dir=sets)
    done = command("launch.convert", "--source=torchvision", "--model=resnet18",
                   f"--data_dir={sets}", f"--weights={path}", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 3 and "as imagenet2012 has, got 3" in done.stderr
    path = file_of(tmp_path, classes=4)
    refused(check.DataError, "expected 3 classes, as photos has, got 4", data="photos",
            data_dir=sets)

"""timm's and torchvision's own functions: levels, tables and pixels."""

import importlib.util
from pathlib import Path
import random
import sys

import map_oracle
import numpy as np
from PIL import Image
import pillow_oracle as pillow
import pytest
from torchvision_oracle import load

from augjax.augment import maps, policy_tables

pytestmark = pytest.mark.parity

VISION = {  # ours: torchvision's
    "identity": "Identity", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX",
    "translate_y": "TranslateY", "rotate": "Rotate", "brightness": "Brightness", "color": "Color",
    "contrast": "Contrast", "sharpness": "Sharpness", "posterize": "Posterize",
    "solarize": "Solarize", "autocontrast": "AutoContrast", "equalize": "Equalize",
    "invert": "Invert",
}
TIMM = {ours: name for ours, name in VISION.items() if ours != "identity"} | {
    "solarize_add": "SolarizeAdd", "translate_x": "TranslateXRel", "translate_y": "TranslateYRel",
}
INCREASING = ("posterize", "solarize", "color", "contrast", "brightness", "sharpness")
TIMM_NAMES = {  # by map
    "timm": TIMM,
    "timm_inc": TIMM | {name: TIMM[name] + "Increasing" for name in INCREASING},
    "timm_original": TIMM | {
        "posterize": "PosterizeOriginal", "translate_x": "TranslateX", "translate_y": "TranslateY"},
}
LEVELS = [step / 32 for step in range(321)]  # every level of timm's maps


@pytest.fixture(scope="module")
def vision():
    """torchvision.transforms.autoaugment."""
    return load("torchvision.transforms.autoaugment")


@pytest.fixture(scope="module")
def timm():
    """timm.data.auto_augment by its path: the package imports torchvision."""
    root = importlib.util.find_spec("torch").submodule_search_locations[0]
    path = Path(root).parent / "timm/data/auto_augment.py"
    spec = importlib.util.spec_from_file_location("timm_auto_augment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sign_of(monkeypatch):
    """Makes timm's coin fall so that a value gets the sign asked for."""
    return lambda sign: monkeypatch.setattr(random, "random", lambda: 0.9 if sign < 0 else 0.1)


def arguments(timm, name, level):
    of_level = timm.LEVEL_TO_ARG[name]
    return of_level(level, dict(timm._HPARAMS_DEFAULT)) if of_level else ()


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_timm_values_at_every_level(timm, sign_of, name):
    chosen = maps.map_named(name)
    assert set(chosen.ops) == set(TIMM_NAMES[name])
    for operation in chosen.ops:
        for sign in (1.0, -1.0):
            sign_of(sign)
            for level in LEVELS:
                given = arguments(timm, TIMM_NAMES[name][operation], level)
                mine = chosen.value(operation, level, sign, 47, 33)
                if TIMM_NAMES[name][operation].endswith("Rel"):  # a share, times the side there
                    given = (given[0] * (33 if operation == "translate_x" else 47),)
                assert given == (() if mine is None else (mine,)), (operation, level)


def test_timm_operations_and_order(timm):
    assert [TIMM[name] for name in maps.map_named("timm").ops] == timm._RAND_TRANSFORMS
    increasing = [TIMM_NAMES["timm_inc"][name] for name in maps.map_named("timm_inc").ops]
    assert increasing == timm._RAND_INCREASING_TRANSFORMS


@pytest.mark.parametrize("shape", [(32, 32, 3), (33, 47, 3)], ids=str)
@pytest.mark.parametrize("name", TIMM_NAMES)
def test_timm_pixels(timm, sign_of, name, shape):
    chosen, images = maps.map_named(name), pillow.pictures(*shape)[[0, 3]]
    op, level, sign, picture = map_oracle.calls_of(chosen, np.arange(0, 10.1, 0.5), 2)
    done, _ = map_oracle.by_engine(chosen, op, level, sign, sign, sign, images[picture])
    for call in range(len(op)):
        operation, at = chosen.ops[op[call]], float(level[call])
        sign_of(-1.0 if sign[call] else 1.0)
        given = arguments(timm, TIMM_NAMES[name][operation], at)
        if operation == "posterize" and given == (0,):
            continue  # Pillow 13 refuses what used to be black
        result = timm.NAME_TO_OP[TIMM_NAMES[name][operation]](
            Image.fromarray(images[picture[call]]), *given, fillcolor=(128,) * 3,
            resample=Image.Resampling.NEAREST)
        np.testing.assert_array_equal(done[call], np.asarray(result), err_msg=f"{operation} {at}")


@pytest.mark.parametrize("ours, name", [("v0", "v0"), ("imagenet", "original")])
def test_timm_tables(timm, ours, name):
    reverse = {name: ours for names in TIMM_NAMES.values() for ours, name in names.items()}
    table = timm.auto_augment_policy(name)
    assert len(table) == len(policy_tables.TABLES[ours]) == 25
    for pair, mine in zip(table, policy_tables.TABLES[ours], strict=True):
        for entry, (operation, probability, level) in zip(pair, mine, strict=True):
            assert (reverse[entry.name], entry.prob) == (operation, probability)
            if operation not in ("equalize", "autocontrast", "invert"):
                assert entry.magnitude == level


# --- torchvision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "svhn"])
def test_torchvision_tables(vision, name):
    reverse = {name: ours for ours, name in VISION.items()}
    table = vision.AutoAugment(vision.AutoAugmentPolicy(name)).policies
    mine = [
        [(reverse[operation], chance, float(level or 0)) for operation, chance, level in pair]
        for pair in table
    ]
    assert mine == [list(pair) for pair in policy_tables.TABLES[name]]


@pytest.mark.parametrize("shape", [(32, 32, 3), (33, 47, 3), (224, 224, 3)], ids=str)
@pytest.mark.parametrize("name", ["torchvision_aa", "trivial_wide"])
def test_torchvision_pixels(vision, name, shape):
    chosen, images = maps.map_named(name), pillow.pictures(*shape)[[0, 3]]
    if name == "torchvision_aa":
        space = vision.AutoAugment()._augmentation_space(10, shape[:2])
    else:
        space = vision.TrivialAugmentWide()._augmentation_space(31)
    assert {VISION[operation] for operation in chosen.ops} == set(space)
    levels = range(int(chosen.highest) + 1) if shape[0] < 100 else (4, 8)
    op, level, sign, picture = map_oracle.calls_of(chosen, levels, 2)
    done, _ = map_oracle.by_engine(chosen, op, level, sign, sign, sign, images[picture])
    for call in range(len(op)):
        operation, at = chosen.ops[op[call]], int(level[call])
        magnitudes, signed = space[VISION[operation]]
        magnitude = float(magnitudes[at].item()) if magnitudes.ndim else 0.0
        # spec B2 moves the window, torchvision the picture: its + is our -, and both are drawn.
        mirrored = operation.startswith("translate") != bool(sign[call])
        expected = vision._apply_op(
            Image.fromarray(images[picture[call]]), VISION[operation],
            -magnitude if signed and mirrored else magnitude,
            vision.InterpolationMode.NEAREST, [128] * 3)
        np.testing.assert_array_equal(done[call], np.asarray(expected), err_msg=f"{operation} {at}")


@pytest.mark.parametrize("stop, count", [(0.99, 31), (135, 31), (32, 31), (0.3, 10), (0.9, 10)])
def test_torchvision_bins(vision, stop, count):
    del vision
    torch = sys.modules["torch"]
    np.testing.assert_array_equal(
        maps.linspace(0.0, stop, count), torch.linspace(0.0, stop, count).numpy())

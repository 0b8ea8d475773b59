"""Random edits of every shipped config: they build, or they are refused in a sentence, with 2.

What must not happen is a TypeError from far below. `AUGJAX_FUZZ=N` makes N edits of each config
instead of a few; `AUGJAX_FUZZ_TRACE=1` also traces the update of each that builds, as a run does
before it begins.
"""

import json
import os
from pathlib import Path
import random

import jax
from ml_collections import ConfigDict
import pytest

from augjax import check, data, recipe, train
from augjax.train import sharding, start
from augjax.train.phases import check_recipe
from configs import quickstart
from random_edits import arguments, edited, near, SENTENCE, told, within
from test_configs import FILES, load, trainings

EDITS = int(os.environ.get("AUGJAX_FUZZ", "6"))
TRACE = "AUGJAX_FUZZ_TRACE" in os.environ
MESH = sharding.make_mesh(jax.devices()[:1])


def plain_trainings(path: Path) -> list[dict]:
    """Every training of a config as plain data, what it needs included."""
    arg = arguments(path)
    made = load(path).get_config(*[arg] * (arg is not None))
    return [config.to_dict() for config in trainings(made)]


def refusal(config: dict, like=None) -> str:
    """The sentence with which a config is refused; "" where it builds. Other errors pass."""
    try:
        built = recipe.build(ConfigDict(config), like)
        check_recipe(built, MESH)
        if TRACE:
            with jax.set_mesh(MESH):
                start.all_shapes(built, MESH)
    except check.AugjaxError as error:
        assert error.exit_code == 2 or like is None and error.exit_code == 3, error
        assert SENTENCE.fullmatch(str(error)), str(error)
        return str(error)
    return ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_edited_config_builds_or_is_refused_in_a_sentence(path):
    whole = plain_trainings(path)
    draw = random.Random(f"{path.parent.name}/{path.name}")
    wrong, refused = [], 0
    for _ in range(EDITS):
        config = draw.choice(whole)
        like = data.described(config["data"]["name"], config["data"]["image_size"] or None)
        config, what = edited(config, draw)
        refused += told(lambda: refusal(config, like), what, wrong)
    assert not wrong, f"{len(wrong)} of {EDITS}:\n" + "\n".join(wrong)
    assert refused > EDITS / 4


# --- what fuzzing has found ----------------------------------------------------------------------


def quick(**changes) -> dict:
    """The quick start as plain data with some fields set: {"student/epochs": 1.0}."""
    config = quickstart.get_config().to_dict()
    for path, value in changes.items():
        *parents, name = path.split("/")
        block = config
        for parent in parents:
            block = block[parent]
        block[name] = value
    return config


FOUND = {  # {field of the quick start: [(value, part of the sentence)]}; a traceback once, or taken
    # without a word
    "seed": [(-1, "0 to 2^32 - 1"), (2**40, "0 to 2^32 - 1"), (True, "a whole number")],
    "data": [("train", "a block of fields"), ({}, "'none'")],
    "data/limit": [("8", "config.data.limit: expected a whole number, got '8'")],
    "data/dirr": [("x", "Did you mean 'dir'")],
    "mesh": [(0, "a block of fields"), ({"fsdpp": True}, "Did you mean 'fsdp'")],
    "checkpoint/milestones": [((0.5,), "each is a whole number"), ("all", "a list")],
    "phases": [(3, "a list"), ((1,), "each is a text")],
    "log/every_steps": [(2.5, "a whole number")],
    "student": [(3, "got 'student'"), ({"terms": {}}, "expected")],
    "student/epochs": [(float("nan"), "a finite number"), (1e30, "at most 100,000"),
                       (-1.0, "more than 0"), ("ten", "student.epochs: expected a finite number")],
    "student/batch_size": [("many", "a whole number, got 'many'"), (0, "1 to 1437")],
    "student/eval": [(3, "a block of fields")],
    "student/eval/batch_size": [(0, "1 image or more"), (-512, "1 image or more")],
    "student/ema": [(2.0, "between 0 and 1"), (float("inf"), "a finite number")],
    "student/model": [("resnet20", "a block of fields"), ({}, "got ''")],
    "student/model/domains": [("2", "a whole number")],
    "student/model/mean": [(None, "a list of which each is a finite number")],
    "student/model/image_size": [(-8, "image_shape of resnet8_tiny")],
    "student/views": [((1,), "a block of fields")],
    "student/views/train": [(0.5, "a block of fields")],
    "student/views/train/padd": [(4, "Did you mean 'pad'")],  # once ignored in silence
    "student/views/train/policy/kind": [(None, "one of 'autoaugment'")],
    "student/views/train/policy/magnitude": [("nine", "a finite number")],
    "student/views/train/policy/num_layers": [(1.5, "a whole number"), ("2", "a whole number")],
    "student/views/train/policy/magnitude_schedule": [(-1, "a block of fields")],
    "student/views/train/erase/probability": [("often", "a finite number")],
    "student/terms": [("ce", "a block of fields")],
    "student/terms/kd": [(1.0, "student.terms.kd: expected a block of fields")],
    "student/terms/kd/tau": [({"a": 1}, "student.terms.kd.tau: expected a finite number")],
    "student/terms/kd/weight": [(float("inf"), "a finite number"), ([], "a finite number")],
    "student/terms/kd/weight_schedule": [(float("inf"), "a block of fields")],
    "student/optimizer": [((), "a block of fields")],
    "student/optimizer/clip_norm": [("none", "a finite number"), (-1.0, "at least 0")],
    "student/optimizer/base_batch": [("none", "a whole number")],
    "student/optimizer/decay": [((1,), "each is a text")],
    "student/optimizer/learning_rate_schedule": [((), "a block of fields")],
    "student/optimizer/learning_rate_schedule/epochs": [(("a",), "each is a finite number")],
    "student/combine": [({}, "combine.kind"), (3, "a block of fields")],
    "student/pick": [({"knd": "top"}, "pick.kind")],
    "student/peers": [("scratch", "a block of fields"), ({"p": 3}, "student.peers.p")],
    "student/onlookers": [({"who": 3}, "student.onlookers.who: expected a text")],
    "student/repeat": [("x", "a block of fields"), ({"sparsity": "abc"}, "a list")],
    "student/trains": [(("*", 1), "each is a text")],
    "pruned/transform": [({"mask": 0.6}, "pruned.transform.mask: expected a block of fields")],
    "pruned/transform/mask/sparsity": [("0.6", "a finite number"), (float("nan"), "a finite")],
}


@pytest.mark.parametrize("path, value, part", [
    (path, *each) for path, every in FOUND.items() for each in every])
def test_what_was_found_is_refused(path, value, part):
    assert part in refusal(quick(**{path: value}))


def test_the_quick_start_itself_builds():
    assert refusal(quick()) == ""
    assert refusal(json.loads(json.dumps(quick()))) == ""  # lists for tuples
    with pytest.raises(AssertionError):
        assert refusal(quick(seed=-1)) == ""


# --- what builds trains --------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3))
def test_an_edit_that_builds_trains(tmp_path, number):
    """A plain phase of the quick start, its numbers edited: it ends well or with a sentence. They
    are knobs, so that one program serves all."""
    draw = random.Random(number)
    config = quick(phases=("teacher",))
    config["data"]["limit"] = 64
    config["teacher"] |= {"epochs": 1.0, "batch_size": 32}
    config["teacher"]["model"]["name"] = "resnet8_tiny"
    field = draw.choice((("optimizer", "learning_rate"), ("terms", "ce", "weight")))
    block = within(config["teacher"], field)
    block[field[-1]] = near(block[field[-1]], draw)
    try:
        summary = train.run(recipe.build(ConfigDict(config)), tmp_path, devices=jax.devices()[:1])
        assert summary["phases"]["teacher"]["steps"] == 2
    except (check.ConfigError, check.NumericsError) as error:
        assert SENTENCE.fullmatch(str(error))

"""Terms and their weights as configs give them: how many images a term keeps, what is trained."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from augjax import builders, check, data, defaults, parts, recipe, tree
from augjax.train import sharding
from augjax.train.phases import check_recipe
from augjax.types import Clock, stateless
from configs.cifar import distillation, role_wise_pairs
from losses.scene import KEY, scene


def test_a_memory_of_fewer_images_than_the_training_set_is_refused():
    """Digits have 1,437 to train on: that many places will do, one less will not."""
    digits, mesh = data.load("digits"), sharding.make_mesh(jax.devices()[:1])
    tiny = {"model": defaults.model("resnet8_tiny"), "batch_size": 16}

    def checked(images, views=()):
        crd = defaults.term("crd", 0.8, views, images=images, negatives=10)
        student = defaults.phase(**tiny, teacher="phase:teacher", terms={"memory": crd})
        check_recipe(recipe.build(defaults.config(
            {"teacher": defaults.phase(**tiny), "student": student}, {"name": "digits"}), digits),
            mesh)

    for images, views in ((60, ()), (60, ("train",)), (1436, ())):
        with pytest.raises(check.ConfigError, match=(
                r"student.terms.memory: expected places for 1437 images \(those it trains on\), "
                f"got {images}. Give it images = 1437")):
            checked(images, views)
    checked(1437, ("train",))


def test_a_frozen_network_that_nothing_listens_to_is_refused():
    def built(terms, onlookers=("teacher",), **options):
        model = {"model": defaults.model("resnet8_tiny")}
        more = {who: "phase:first" for who in onlookers if who != "teacher"}
        taught = defaults.phase(**model, teacher="phase:first", onlookers=more, terms={
            kind: defaults.term(kind, 1.0, **fields) for kind, fields in terms.items()}, **options)
        phases = {"first": defaults.phase(**model), "taught": taught}
        return recipe.build(defaults.config(phases, {"name": "digits"}), data.load("digits"))

    with pytest.raises(check.ConfigError, match="taught: teacher: expected a term .*cross_entropy"
                                                ".*--config.taught.terms='.*hinton"):
        built({"cross_entropy": {}})
    with pytest.raises(check.ConfigError, match="taught: second: expected a term"):
        built({"hinton": {}}, ("teacher", "second"))
    assert built({"cross_entropy": {}, "hinton": {}})
    assert built({"hinton": {"teacher": ("teacher", "second")}}, ("teacher", "second"))
    views = {"train": defaults.view("flip"), "mixed": defaults.mixed("train", "mixup", rows=2)}
    assert built({"cross_entropy": {}}, views=views, pick=defaults.pick("top"))


def test_a_term_that_lacks_its_teacher_is_refused_before_anything_is_traced():
    config = defaults.config({"student": defaults.phase(
        model=defaults.model("resnet8_tiny"), terms={"kd": defaults.term("hinton")})},
        {"name": "digits"})
    with pytest.raises(check.ConfigError, match="student.terms.kd: expected a teacher, to whom it "
                                                "listens, got none. Set student.teacher to run:"):
        recipe.build(config, data.load("digits"))


def test_somebodys_own_term_may_listen_to_whom_it_likes(monkeypatch):
    """Nothing tells that it reads `signals.outputs["teacher"]`, unless an argument names it."""
    def agreement():
        return stateless(lambda signals: (signals.outputs["teacher"].logits
                                          - signals.outputs["student"].logits).mean())

    monkeypatch.setitem(parts.TERMS, "agreement", agreement)
    terms = {"ce": defaults.term("cross_entropy"), "mine": defaults.term("agreement")}
    model = {"model": defaults.model("resnet8_tiny")}
    phases = {"first": defaults.phase(**model),
              "taught": defaults.phase(**model, teacher="phase:first", terms=terms)}
    assert recipe.build(defaults.config(phases, {"name": "digits"}), data.load("digits"))


@pytest.mark.parametrize("field, text, told", [
    ("teacher", "scratch", "taught.teacher: expected none, phase:NAME or run:DIR"),
    ("init", "none", "taught.init: expected scratch, phase:NAME or run:DIR"),
    ("teacher", "RUN", "write run:.*/run"),
    ("init", "RUN", "write run:.*/run"),
])
def test_a_network_of_no_known_place_is_refused(tmp_path, field, text, told):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").touch()
    model = {"model": defaults.model("resnet8_tiny")}
    phases = {"first": defaults.phase(**model), "taught": defaults.phase(
        **model, **{field: str(folder) if text == "RUN" else text})}
    with pytest.raises(check.ConfigError, match=f"(?i){told}"):
        recipe.build(defaults.config(phases, {"name": "digits"}), data.load("digits"))


@pytest.mark.parametrize("pair", ["wrn_28_10-wrn_16_2", "preresnet164-preresnet32"])
def test_what_a_clip_would_not_cut_is_not_trained(pair):
    """`clipped` cuts the gradients of networks alone: here its terms have no parameters."""
    seen = scene()
    seen = replace(seen, outputs={**seen.outputs, "teacher": seen.outputs["wide"]})
    phases = {row: config.student for row, config in role_wise_pairs.get_config(
        f"pair={pair}").rows.items()}
    clipped = {row: phase for row, phase in phases.items() if phase.combine.kind == "clipped"}
    assert set(clipped) == {"kd", "search", "beta"}
    for row, phase in clipped.items():
        term = builders.build_term(row, phase.terms.kd, ())
        params, state = jax.eval_shape(term.init, KEY, seen)
        assert not tree.flatten(params) and tree.flatten(state)["kd_svd/f1/kernel"].shape == (4, 3)


# --- schedules -----------------------------------------------------------------------------------


def test_decoupled_kd_warms_up_at_full_scale_alone():
    """mdistiller, configs/cifar100/dkd/res56_res20.yaml: BETA 2; engine/cfg.py: WARMUP 20."""
    full, small = (distillation.get_config(f"scale={scale}").rows.dkd.student
                   for scale in ("full", "small"))
    rising, epochs = builders.scheduled("kd", full.terms.kd, "weight"), np.array([0, 5, 20, 239.0])
    assert rising(Clock(np.arange(4), epochs, epochs / 240)).tolist() == [0, 0.25, 1, 1]
    assert full.terms.kd.other_weight == 2.0 and "other_weight" not in small.terms.kd
    assert builders.scheduled("ce", full.terms.ce, "weight") == 1.0
    assert builders.scheduled("kd", small.terms.kd, "weight") == 1.0


TWICE = {
    "piecewise": {"epochs": (2.0, 2.0), "factors": (0.1, 0.5)},
    "table": {"epochs": (0.0, 3.0, 0.0), "points": (1.0, 2.0, 3.0)},
    "sparsity": {"sparsities": (0.0, 0.0), "points": (14.0, 4.0)},
}


@pytest.mark.parametrize("kind", TWICE)
def test_a_place_twice_is_refused(kind):
    (places, at), (numbers, _) = TWICE[kind].items()
    term = defaults.term("cross_entropy", weight_schedule=defaults.schedule(kind, **TWICE[kind]))
    config = defaults.config({"student": defaults.phase(terms={"ce": term})}, {"name": "digits"})
    with pytest.raises(check.ConfigError) as caught:
        recipe.build_phases(recipe.expanded(config), recipe.Pictures("digits", 10, (8, 8, 3)))
    assert f"schedule '{kind}': expected as many {numbers} as {places}, none of these twice, " \
        f"got {at}" in str(caught.value)

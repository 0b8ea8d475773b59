"""Several teachers and networks that learn beside each other, as configs."""

import jax
import pytest

from augjax import check, defaults, recipe
from augjax.train import sharding, start

PICTURES = recipe.Pictures("digits", 10, (8, 8, 3))
TINY = {"model": defaults.model("resnet8_tiny"), "batch_size": 16, "epochs": 0.25,
        "views": {"train": defaults.view("crop")}}


def mutual(**changes):
    """Two teachers, a student and its peer (role_wise_kd's DML), who starts as one of them."""
    terms = {
        "ce": defaults.term("cross_entropy"), "ce_peer": defaults.term("cross_entropy", net="peer"),
        "dml": defaults.term("mutual"),
        "dml_peer": defaults.term("mutual", net="peer", peers=("student",)),
        "kd": defaults.term("hinton", teacher=("teacher", "second")),
    }
    student = {
        "terms": terms, "teacher": "phase:first", "onlookers": {"second": "phase:second"},
        "peers": {"peer": defaults.peer(defaults.model("resnet8_tiny"), "phase:second")}}
    return defaults.config(
        phases={"first": defaults.phase(**TINY), "second": defaults.phase(**TINY),
                "student": defaults.phase(**TINY, **{**student, **changes})},
        data={"name": "digits", "limit": 64, "image_size": 8}, log={"every_steps": 1})


def test_both_learn_and_two_teach():
    built = recipe.build(mutual())
    phase = built.phases[-1]
    assert phase.objective.learners == ("student", "peer")
    assert {who: str(source) for who, source in phase.frozen.items()} == {
        "teacher": "phase:first", "second": "phase:second"}
    assert {who: str(source) for who, source in phase.init.items()} == {"peer": "phase:second"}
    shapes = start.shapes(phase, built, sharding.make_mesh(jax.devices()[:1]))
    assert set(shapes.state.params["nets"]) == {"student", "peer"}
    assert set(shapes.signals.outputs) == {"student", "peer", "teacher", "second"}


def refusal(**changes):
    with pytest.raises(check.ConfigError) as caught:
        recipe.build_phases(recipe.expanded(mutual(**changes)), PICTURES)
    return str(caught.value)


def test_wrong_networks_are_refused():
    assert "Did you mean 'second'" in refusal(onlookers={"second": "phase:secnd"})
    for text in ("scratch", "none"):  # an onlooker is a trained network, or it is not there
        assert "expected phase:NAME or run:DIR" in refusal(onlookers={"second": text})
    assert "Rename it" in refusal(onlookers={"peer": "phase:second"})
    assert "Rename it" in refusal(peers={"student": defaults.peer(defaults.model("resnet8"))})


def test_a_ladder_is_followed_by_its_last_rung():
    config = mutual()
    with config.unlocked():
        config.second.views.train.policy = defaults.randaugment(1.0)
        config.second.repeat.magnitude = (2.0, 1.0)
    phase = recipe.build_phases(recipe.expanded(config), PICTURES)[-1]
    assert phase.frozen["second"].phase == phase.init["peer"].phase == "second-2"


def test_where_they_come_from_is_no_structure_and_who_they_are_is():
    def structure(**changes):
        return recipe.build_phases(recipe.expanded(mutual(**changes)), PICTURES)[-1].structure

    other = {"peer": defaults.peer(defaults.model("resnet8_tiny"))}
    assert structure() == structure(peers=other) == structure(onlookers={"second": "phase:first"})
    assert structure() != structure(peers={"peer": defaults.peer(defaults.model("resnet8"))})

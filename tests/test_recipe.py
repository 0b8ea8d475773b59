"""From names to parts: what a config may say, what it may not, and what two configs share."""

import json

import jax
from ml_collections import ConfigDict
import pytest

from augjax import augment, check, defaults, recipe, train
from configs import quickstart

PICTURES = recipe.Pictures("digits", 10, (16, 16, 3))


def quick(**changes):
    config = quickstart.get_config()
    config.update_from_flattened_dict(changes)
    return config


def phases_of(config):
    return {phase.name: phase for phase in recipe.build_phases(recipe.expanded(config), PICTURES)}


def refusal(config):
    with pytest.raises(check.ConfigError) as caught:
        phases_of(config)
    return str(caught.value)


def test_a_config_survives_json():
    """A run folder rebuilds its run: lists for tuples change nothing."""
    config = quickstart.get_config()
    again = ConfigDict(json.loads(config.to_json()))
    assert [p.structure for p in phases_of(config).values()] == [
        p.structure for p in phases_of(again).values()]


@pytest.mark.parametrize("change", [
    {"pruned.views.train.policy.magnitude": 9.0},
    {"pruned.terms.kd.weight": 0.5},
    {"pruned.optimizer.learning_rate": 0.01},
    {"pruned.optimizer.learning_rate_schedule.kind": "constant"},
    {"pruned.views.train.policy.magnitude_schedule.kind": "linear"},
    {"pruned.transform.mask.sparsity": 0.9},
    {"pruned.epochs": 1.0},
])
def test_knobs_do_not_change_the_structure(change):
    assert phases_of(quick(**change))["pruned"].structure == phases_of(quick())["pruned"].structure


@pytest.mark.parametrize("change", [
    {"pruned.model.name": "resnet20"},
    {"pruned.terms.kd.tau": 1.0},
    {"pruned.views.train.policy.num_layers": 1},
    {"pruned.batch_size": 32},
    {"pruned.optimizer.momentum": 0.5},
    {"teacher.model.name": "resnet20"},
])
def test_method_changes_the_structure(change):
    assert phases_of(quick(**change))["pruned"].structure != phases_of(quick())["pruned"].structure


def test_student_and_pruned_differ_by_their_mask_alone():
    """The student's step has no mask, the pruned one's has: two programs."""
    built = phases_of(quick())
    assert built["student"].structure != built["pruned"].structure


@pytest.mark.parametrize("field, value, hint", [
    ("student.model.name", "resnet21", "'resnet20'"),
    ("student.views.train.base", "crop_flop", "'crop_flip'"),
    ("student.views.train.policy.kind", "randagument", "'randaugment'"),
    ("student.views.train.policy.map", "torch", "'torchvision'"),
    ("student.terms.kd.kind", "hintn", "'hinton'"),
    ("student.optimizer.kind", "sdg", "'sgd'"),
    ("student.optimizer.learning_rate_schedule.kind", "cosin", "'cosine'"),
    ("student.combine.kind", "weighted_sums", "'weighted_sum'"),
    ("student.pick.kind", "keepall", "'keep_all'"),
    ("student.teacher", "phase:techer", "'teacher'"),
    ("student.model.dtype", "float16", "'float32'"),
])
def test_a_misspelt_name_is_answered_with_the_nearest(field, value, hint):
    question = refusal(quick(**{field: value})).split("Did you mean")[1]
    assert hint in question


def test_a_schedule_that_leaves_the_maps_range_is_refused():
    changes = {"student.views.train.policy.magnitude_schedule.kind": "linear",
               "student.views.train.policy.magnitude_schedule.stop": 40.0}
    assert "0 to 30" in refusal(quick(**changes))


def test_an_unknown_field_of_a_term_is_refused():
    config = quickstart.get_config()
    with config.unlocked():
        config.student.terms.kd.temperature = 4.0
    assert "temperature" in refusal(config)


def test_an_unknown_field_of_a_phase_is_refused():
    config = quickstart.get_config()
    with config.unlocked():
        config.student.epoch = 3
    assert "Did you mean 'epochs'" in refusal(config)


@pytest.mark.parametrize("word", ["data", "seed", "mesh", "checkpoint"])
def test_a_phase_may_not_be_called_by_a_reserved_word(word):
    config = quickstart.get_config()
    with config.unlocked():
        config.phases = (word,)
    assert "reserved" in refusal(config)


def test_a_phase_may_only_take_from_earlier_ones():
    assert "student" in refusal(quick(**{"teacher.init": "phase:student"}))


def test_a_sparsity_outside_the_range_is_refused():
    assert "[0, 1)" in refusal(quick(**{"pruned.transform.mask.sparsity": 1.0}))


def test_a_ladder_is_one_block():
    """Each rung starts from the last one; what came later means the last rung."""
    config = quickstart.get_config()
    with config.unlocked():
        config.pruned.repeat = ConfigDict({"sparsity": (0.2, 0.4), "magnitude": (4.0, 3.0)})
        config.after = defaults.phase(init="phase:pruned", model=defaults.model("resnet8_tiny"),
                                      transform={"mask": defaults.mask(0.4)})
        config.phases = (*config.phases, "after")
    built = phases_of(config)
    assert list(built) == ["teacher", "student", "pruned-1", "pruned-2", "after"]
    sources = {name: str(phase.init["student"]) for name, phase in built.items() if phase.init}
    assert sources == {"pruned-1": "phase:student", "pruned-2": "phase:pruned-1",
                       "after": "phase:pruned-2"}
    assert built["pruned-1"].structure == built["pruned-2"].structure
    assert [float(built[f"pruned-{i}"].knobs.policies["train"].magnitude) for i in (1, 2)] == [4, 3]


def test_a_ladder_needs_lists_of_one_length():
    config = quickstart.get_config()
    with config.unlocked():
        config.pruned.repeat = ConfigDict({"sparsity": (0.2, 0.4), "magnitude": (4.0,)})
    assert "one length" in refusal(config)


@pytest.mark.parametrize("text, part", [
    ("runs/a", "phase:NAME"), ("run:", "phase:NAME"), ("run:nowhere", "config.json"),
    ("file:x.pth", "phase:NAME"),
])
def test_a_source_that_is_none_is_refused(text, part):
    assert part in refusal(quick(**{"student.teacher": text}))


def test_a_configs_argument_is_keys_and_values():
    words = {"scale": ("full", "tiny"), "schedule": ()}
    assert defaults.chosen("", words) == {"scale": "full", "schedule": ""}
    assert defaults.chosen("schedule=a=b,scale=tiny", words) == {"scale": "tiny", "schedule": "a=b"}
    for arg, part in (("scale=tini", "Did you mean 'tiny'"), ("scal=full", "Did you mean 'scale'")):
        with pytest.raises(check.ConfigError, match=part):
            defaults.chosen(arg, words)


def test_another_resolution_is_the_same_network():
    config = quick()
    recipe.resize(config, 24)
    old, new = (phases_of(each)["student"].objective.nets["student"] for each in (quick(), config))
    assert jax.eval_shape(old.init, jax.random.key(0)) == jax.eval_shape(
        new.init, jax.random.key(0))
    assert config.student.model.image_size == 24 and not config.data.image_size
    with pytest.raises(check.ConfigError, match="pixels a side"):
        recipe.resize(config, -1)


def test_building_touches_no_device(monkeypatch):
    """Wrong fields must fail before anything runs, so building must not run anything."""
    def refuse(*args, **kwargs):
        raise AssertionError("a device was touched")

    monkeypatch.setattr(jax, "devices", refuse)
    monkeypatch.setattr(jax, "device_put", refuse)
    assert isinstance(recipe.build(quickstart.get_config()), train.Recipe)


SCHEDULE = {
    "version": 1, "map": "autoaugment", "ops": list(augment.maps.PBA_OPS), "epochs": 4,
    "segments": [{"epochs": 4, "probabilities": [0.5] * 30, "levels": [3] * 30}],
}


def shown(**views):
    """One phase whose rows come from the given views."""
    return defaults.config(
        phases={"student": defaults.phase(model=defaults.model("resnet8_tiny"), views=views,
                                          batch_size=16)},
        data={"name": "digits", "limit": 64})


@pytest.mark.parametrize("policy", [
    defaults.randaugment(9.0, probability=0.5, noise=0.5, map="timm_inc", fill="mean"),
    defaults.randaugment(9.0, interpolation="bilinear"),
    defaults.policy("ranged_randaugment", lowest=0.0, highest=30.0),
    defaults.policy("trivial_augment"),
    defaults.policy("autoaugment", name="cifar10", fill=(125, 123, 114)),
    defaults.policy("outliers", magnitude=3.0, fill="mean"),
    defaults.policy("pba", probabilities=(0.5,) * 30, levels=(3.0,) * 30, fill="mean"),
], ids=lambda p: p.kind)
def test_every_policy_is_a_config(policy):
    phase = phases_of(shown(train=defaults.view("crop", policy)))["student"]
    assert hasattr(phase.knobs.policies["train"], "draw")


def test_a_schedule_is_replayed_over_another_number_of_epochs(tmp_path):
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps(SCHEDULE))
    view = defaults.view("crop", defaults.policy("replay", schedule=str(path), fill="mean"))
    assert phases_of(shown(train=view))["student"].knobs.policies["train"].levels is not None
    missing = defaults.view("crop", defaults.policy("replay", schedule="nowhere.json"))
    assert "schedule.json" in refusal(shown(train=missing))


def test_weak_and_mixed_views_train(tmp_path):
    """kd_thrives_on_da's rows in small: a weak view that is shown, two CutMix views of it."""
    config = shown(weak=defaults.view("crop"), mixed=defaults.mixed("weak", "cutmix", rows=2))
    built = recipe.build(config)
    summary = train.run(built, tmp_path, devices=jax.devices()[:1])
    assert summary["phases"]["student"]["steps"] == 4
    assert "'weak'" in refusal(shown(weak=defaults.view(), mixed=defaults.mixed("waek")))


def test_mixing_numbers_are_knobs():
    structures = [phases_of(shown(weak=defaults.view("crop"),
                                  mixed=defaults.mixed("weak", alpha=alpha)))["student"].structure
                  for alpha in (1.0, 0.5)]
    assert structures[0] == structures[1]

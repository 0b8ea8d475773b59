"""How a config says what optimises: fields by kind, options of optax, rates, micro-batches."""

import json
import sys

from absl import flags
import jax
from ml_collections import config_flags, ConfigDict
import numpy as np
import pytest

from augjax import check, defaults, papers, recipe, train, tree
from augjax.types import Clock

PICTURES = recipe.Pictures("digits", 10, (16, 16, 3))


def built(optimizer=None, **changes):
    """The one phase of a config."""
    if optimizer is not None:
        changes["optimizer"] = optimizer
    config = defaults.config({"only": defaults.phase(**changes)}, {"name": "digits"})
    config = ConfigDict(json.loads(config.to_json()))  # as a run folder has it: lists for tuples
    return recipe.build_phases(recipe.expanded(config), PICTURES)[0]


def rates(phase, epochs=4):
    epoch = np.linspace(0, epochs, 9)
    return phase.knobs.learning_rate(Clock(np.arange(9), epoch, epoch / epochs))


def after(optimizer, rate=0.1):
    """A parameter after three steps."""
    params = {"nets": {"kernel": np.float32([1.0, -2.0]), "bias": np.float32([0.3])}}
    state = optimizer.init(params)
    for _ in range(3):
        grads = jax.tree.map(lambda w: 2 * w + 0.1, params)
        updates, state = optimizer.update(grads, state, params, learning_rate=rate)
        params = jax.tree.map(lambda w, u: w + u, params, updates)
    return np.concatenate([params["nets"]["kernel"], params["nets"]["bias"]])


SAME = {
    "sgd": (defaults.optimizer(momentum=0.8, nesterov=True, weight_decay=0.1, clip_norm=2.0),
            lambda: train.sgd(0.8, True, 0.1, clip_norm=2.0)),
    "adam": (defaults.optimizer("adam", eps=1e-5, decay=("*/kernel",), weight_decay=0.1),
             lambda: train.adam(eps=1e-5, weight_decay=0.1, decay=("*/kernel",))),
    "rmsprop_tf": (defaults.optimizer("rmsprop_tf"), train.rmsprop_tf),
    "rmsprop_tf with options": (
        defaults.optimizer("rmsprop_tf", options={"rho": 0.5, "eps": 0.1}, clip_norm=1.0),
        lambda: train.rmsprop_tf(0.5, eps=0.1, clip_norm=1.0)),
    "adamw": (
        defaults.optimizer("adamw", options={"b2": 0.9}, weight_decay=0.3, decay=("*/kernel",)),
        lambda: train.from_optax("adamw", {"b2": 0.9}, 0.3, ("*/kernel",))),
    "lamb": (defaults.optimizer("lamb", clip_norm=1.0),
             lambda: train.from_optax("lamb", clip_norm=1.0)),
    "a name of ours in optax": (defaults.optimizer("rmsprop", options={"decay": 0.5}),
                                lambda: train.from_optax("rmsprop", {"decay": 0.5})),
}


@pytest.mark.parametrize("name", SAME)
def test_a_config_builds_what_python_builds(name):
    block, made = SAME[name]
    np.testing.assert_array_equal(after(built(block).optimizer), after(made()))


REFUSED = {
    "a field that the kind does not read": (
        {"kind": "adamw", "b1": 0.95}, r"only.optimizer.b1: .*'adamw' does not read it, got 0.95. "
        r"Leave it as it is, or try only.optimizer.options=\{...\}"),
    "momentum of adam": ({"kind": "adam", "momentum": 0.5}, "only.optimizer.momentum: .* it is.$"),
    "a misspelt option": ({"kind": "lamb", "options": {"b22": 0.5}}, "Did you mean 'b2'"),
    "a misspelt option of ours": (
        {"kind": "rmsprop_tf", "options": {"roh": 0.5}}, "only.optimizer.options.*mean 'rho'"),
    "an option that is a field": (
        {"kind": "rmsprop_tf", "options": {"clip_norm": 1.0}}, "only.optimizer.options: .*'eps'"),
    "options of sgd": (
        {"options": {"momentum": 0.5}}, "only.optimizer.options: .*fields momentum, nesterov"),
    "a misspelt kind": ({"kind": "adamv"}, "only.optimizer.kind: .*'adamw'"),
    "a misspelt field": ({"momentun": 0.5}, "field of only.optimizer: .*mean 'momentum'"),
    "a misspelt field of a schedule": (
        {"learning_rate_schedule": {"kind": "cosine", "warmup": 5.0}},
        "field of only.optimizer.learning_rate_schedule: .*mean 'warmup_epochs'"),
    "a negative clip": ({"clip_norm": -1.0}, "clip_norm: expected at least 0"),
    "a negative base": ({"base_batch": -1}, "only.optimizer.base_batch: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_kind_does_not_know_is_refused(name):
    fields, sentence = REFUSED[name]
    with pytest.raises(check.ConfigError, match=sentence):
        built(defaults.optimizer(**fields))


def test_options_are_typed_as_a_dict_on_the_command_line(monkeypatch):
    config = defaults.config({"only": defaults.phase()}, {"name": "digits"})
    typed = ["train", "--config.only.optimizer.kind=adamw",
             '--config.only.optimizer.options={"b2": 0.95}', "--config.only.accumulate=4",
             "--config.only.optimizer.learning_rate_schedule.kind=exponential"]
    monkeypatch.setattr(sys, "argv", typed)  # where ml_collections looks for fields
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values)
    values(typed)
    phase = recipe.build_phases(recipe.expanded(values["config"].value), PICTURES)[0]
    np.testing.assert_array_equal(after(phase.optimizer),
                                  after(train.from_optax("adamw", {"b2": 0.95})))
    assert phase.accumulate == 4
    assert rates(phase) == pytest.approx([0.1] * 5 + [0.097] * 4)


def test_a_rate_per_images_follows_the_batch_with_its_whole_schedule():
    """EfficientNet's .016 * batch / 256; the end of a cosine is a rate as well."""
    falling = defaults.schedule("cosine", stop=0.002)
    for batch in (64, 4096):
        block = defaults.optimizer(learning_rate=0.016, base_batch=256,
                                   learning_rate_schedule=falling)
        plain = defaults.optimizer(learning_rate=0.016, learning_rate_schedule=falling)
        scaled, as_it_is = (rates(built(each, batch_size=batch)) for each in (block, plain))
        np.testing.assert_allclose(scaled, as_it_is * batch / 256, rtol=1e-6)
        assert scaled.dtype == np.float32
    constant = defaults.optimizer(learning_rate=0.016, base_batch=256)
    large = built(constant, batch_size=4096, accumulate=8)
    assert large.knobs.learning_rate == pytest.approx(0.256)


def test_rates_are_knobs_and_the_rest_is_structure():
    plain = built(defaults.optimizer()).structure
    for same in (defaults.optimizer(base_batch=256), defaults.optimizer(
            learning_rate_schedule=defaults.schedule("exponential", factor=0.9))):
        assert built(same).structure == plain
    for other in (defaults.optimizer(clip_norm=1.0), defaults.optimizer("adamw"),
                  defaults.optimizer("adamw", options={"b2": 0.5})):
        assert built(other).structure != plain
    assert built(accumulate=2).structure != plain


def test_an_older_run_lacks_fields_and_is_rebuilt():
    """A config.json written before clip_norm, options or a staircase existed."""
    config = defaults.config({"only": defaults.phase()}, {"name": "digits"})
    with config.unlocked():
        for field in ("clip_norm", "options", "base_batch"):
            del config.only.optimizer[field]
        for field in ("factor", "every_epochs"):
            del config.only.optimizer.learning_rate_schedule[field]
        del config.only["accumulate"]
    phase = recipe.build_phases(recipe.expanded(config), PICTURES)[0]
    assert phase.accumulate == 1
    np.testing.assert_array_equal(after(phase.optimizer), after(train.sgd()))


def test_binary_cross_entropy_is_a_term():
    phase = built(terms={"bce": defaults.term("binary_cross_entropy", label_smoothing=0.1)})
    assert phase.objective.terms["bce"].per_example


def test_weights_of_efficientnets_decay_and_batch_normalisation_does_not():
    """Spec M3: L2 on all variables but BatchNorm's, whose shifts are called biases, too."""
    phase = built(model=defaults.model("efficientnet_b0", width=0.25, depth=0.25, image_size=32),
                  **papers.efficientnet(1.0, 16))
    shapes, _ = jax.eval_shape(phase.objective.nets["student"].init, jax.random.key(0))
    params = {"nets": {"student": jax.tree.map(lambda x: np.ones((1,), x.dtype), shapes)},
              "terms": {}}  # one number of each
    still = jax.tree.map(np.zeros_like, params)
    updates, _ = phase.optimizer.update(
        still, phase.optimizer.init(params), params, learning_rate=0.1)
    moved = {path: bool(np.any(leaf)) for path, leaf in tree.flatten(updates).items()}
    assert {path for path in moved if "norm/" in path} == {
        path for path, moves in moved.items() if not moves}
    assert any(path.endswith("/bias") for path, moves in moved.items() if moves)

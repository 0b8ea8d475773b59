"""A2-Aug's phases: every option of the ensemble is a field, so a flag may set it."""

import inspect
import sys

from absl import flags
from ml_collections import config_flags
import numpy as np
import pytest

from augjax import a2, builders, check, defaults, losses
from test_configs import load, ROOT

TERM = "rows.a2.student.terms.ensemble"


def joint(**ensemble):
    return a2.joint({}, defaults.model("resnet8_tiny"), ((1, 4.0), (2, 9.0)), "flip", **ensemble)


def independent(**ensemble):
    return a2.independent(
        {}, defaults.model("resnet8_tiny"), ((1, 4.0), (2, 9.0)), "flip", **ensemble)


def of_scales(**ensemble):
    return a2.of_scales({}, defaults.model("resnet8_tiny"), (8, 16), "flip", **ensemble)


@pytest.fixture
def parsed(monkeypatch):
    """Flags -> (the ensemble's block of configs/cifar/a2.py under them, the term made of it)."""

    def parse(*texts):
        config = load(ROOT / "configs/cifar/a2.py").get_config("scale=tiny")
        values = flags.FlagValues()
        typed = ["study", *(f"--config.{TERM}.{text}" for text in texts)]
        monkeypatch.setattr(sys, "argv", typed)  # where ml_collections looks for fields
        config_flags.DEFINE_config_dict("config", config, flag_values=values)
        values(typed)
        block = values["config"].value.rows.a2.student.terms.ensemble
        return block, builders.build_term(TERM, block, ())

    return parse


@pytest.mark.parametrize("phase", [joint, independent, of_scales])
def test_every_option_of_the_ensemble_is_a_field_with_its_default(phase):
    options = {name: each.default for name, each in
               inspect.signature(losses.adaptive_ensemble).parameters.items()}
    block = phase().terms.ensemble.to_dict()
    found = {name: block.pop(name, None) for name in options}
    assert found | {"net": "student"} == options
    assert block == defaults.term("adaptive_ensemble").to_dict()
    assert found["net"] == ("student" if phase is not independent else ("student", "net1"))


def test_flags_set_every_option_of_the_ensemble(parsed):
    block, term = parsed("kl_weight=0.5", "logit_scale=3.0", "average=True")
    assert (block.kl_weight, block.logit_scale, block.average) == (0.5, "3.0", True)
    assert term.per_example  # unlike under the default, mean_norm
    with pytest.raises(check.ConfigError, match="logit_scale: expected mean_norm, .* got '-3'"):
        parsed("logit_scale=-3")


def test_a_number_is_written_as_a_text_so_that_a_flag_may_change_it():
    block = joint(logit_scale=2.5, kl_weight=2).terms.ensemble.lock()
    assert block.logit_scale == "2.5" and block.kl_weight == 2.0
    block.update({"logit_scale": "literal", "kl_weight": 0.25})


def test_the_text_of_a_number_is_that_number():
    z, ensemble = np.sin(np.arange(24.0)).reshape(2, 3, 4), np.cos(np.arange(8.0)).reshape(2, 4)
    of_text, of_number = (losses.ensemble_kl(z, ensemble, scale) for scale in ("2.5", 2.5))
    np.testing.assert_array_equal(of_text, of_number)
    for text in ("0", "-1.5", "nan", "inf", "3.0x", ""):
        with pytest.raises(check.ConfigError, match="or a positive number, got "):
            losses.adaptive_ensemble(logit_scale=text)

"""Criteria of picks: by one teacher, and by several."""

from dataclasses import replace

import numpy as np
import pytest

from augjax import check, losses
from augjax.types import Outputs
from losses.scene import scene

CRITERIA = {
    "kl": losses.kl_criterion,
    "teacher_filter": lambda teacher: losses.teacher_filter(0.3, 2.0, teacher=teacher),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_several_teachers_are_asked_for_their_mean_logits(name):
    seen = scene()
    mean = (seen.outputs["teacher"].logits + seen.outputs["wide"].logits) / 2
    one = replace(seen, outputs={**seen.outputs, "both": Outputs(mean)})
    both = CRITERIA[name](teacher=("teacher", "wide"))(seen)
    np.testing.assert_allclose(both, CRITERIA[name](teacher="both")(one), rtol=1e-6)
    alone = CRITERIA[name](teacher="teacher")(seen)
    np.testing.assert_array_equal(CRITERIA[name](teacher=("teacher",))(seen), alone)
    assert np.abs(both - alone).max() > 0.01


@pytest.mark.parametrize("name", CRITERIA)
def test_a_teacher_that_is_not_there_is_refused(name):
    with pytest.raises(check.ConfigError, match="scored by the pick: .*Did you mean 'teacher'"):
        CRITERIA[name](teacher=("wide", "teecher"))(scene())
    with pytest.raises(check.ConfigError, match="teacher of the pick: expected the name of one"):
        CRITERIA[name](teacher=())(scene())

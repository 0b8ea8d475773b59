"""The papers' picks as configs: CutMix-pick and the teacher filter, trained for a few steps."""

import jax
import pytest

from augjax import check, defaults, recipe, train
from train.helpers import rows

PICTURES = recipe.Pictures("digits", 10, (8, 8, 3))


def taught(views, terms, pick, teacher="phase:teacher"):
    """A teacher of one step, and a student who learns from picked rows."""
    tiny = {"model": defaults.model("resnet8_tiny"), "batch_size": 16}
    return defaults.config(
        phases={
            "teacher": defaults.phase(views={"train": defaults.view("crop")}, epochs=0.25, **tiny),
            "student": defaults.phase(views=views, terms=terms, pick=pick, teacher=teacher, **tiny),
        },
        data={"name": "digits", "limit": 64, "image_size": 8},
        log={"every_steps": 1})


def cutmix_pick(**changes):
    """kd_thrives_on_da: cross-entropy on weak views, KL on them and on the picked half."""
    return taught(
        {"weak": defaults.view("crop"), "mixed": defaults.mixed("weak", "cutmix", rows=2)},
        {"ce": defaults.term("cross_entropy", 0.1, views=("weak",)),
         "kl_weak": defaults.term("hinton", 0.9, views=("weak",)),
         "kl_picked": defaults.term("hinton", 0.9, views=("picked",)),
         "disagreement": defaults.term("teacher_disagreement", 0.0, views=("picked",))},
        defaults.pick("top", **changes))


def teacher_filter(**changes):
    """augmentation_in_compression Eq. 6: four views of random magnitude, one is learnt from."""
    strong = defaults.policy("ranged_randaugment", lowest=0.0, highest=30.0)
    return taught(
        {"train": defaults.view("crop", strong, rows=4)},
        {"ce": defaults.term("cross_entropy", 0.1), "kd": defaults.term("hinton", 0.9)},
        defaults.pick("teacher_filter", **changes))


@pytest.mark.parametrize("config, metrics", [
    (cutmix_pick(), {"pick_ratio", "disagreement"}),
    (teacher_filter(), {"kd"}),
], ids=["cutmix_pick", "teacher_filter"])
def test_it_trains(tmp_path, config, metrics):
    summary = train.run(recipe.build(config), tmp_path, devices=jax.devices()[:2])
    assert summary["phases"]["student"]["steps"] == 4
    logged = [row for row in rows(tmp_path, "train") if row["phase"] == "student"]
    assert len(logged) == 4 and all(metrics <= set(row) for row in logged)
    for row in logged:
        assert row.get("pick_ratio", 1.0) >= 1  # the kept half differs more from the teacher
        assert 0 <= row.get("disagreement", 0) <= 1


def refusal(config):
    with pytest.raises(check.ConfigError) as caught:
        recipe.build_phases(recipe.expanded(config), PICTURES)
    return str(caught.value)


def test_wrong_picks_are_refused_with_the_nearest():
    assert "Did you mean 'teacher_entropy'" in refusal(cutmix_pick(criterion="teacher_entrop"))
    assert "Did you mean 'mixed'" in refusal(cutmix_pick(views=("mixd",)))
    assert "Did you mean 'global'" in refusal(cutmix_pick(rule="globl"))
    assert "pick.share" in refusal(cutmix_pick(share=2.0))
    assert "Did you mean 'train'" in refusal(teacher_filter(view="trian"))
    assert "pick.kl_weight" in refusal(teacher_filter(kl_weight=-1.0))
    assert "pick.tau" in refusal(teacher_filter(tau=0.0))


def test_a_term_may_not_look_at_rows_that_were_chosen_from():
    config = cutmix_pick()
    config.student.terms.kl_picked.views = ("mixed",)
    assert "student.terms.kl_picked.views" in refusal(config)


def test_a_pick_that_asks_the_teacher_needs_one():
    config = cutmix_pick()
    config.student.teacher = "none"
    assert "student.pick" in refusal(config)

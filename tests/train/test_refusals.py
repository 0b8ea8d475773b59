"""What is wrong is said in a full sentence, before any device works and with nothing lost."""

from dataclasses import replace
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, losses, method, train
from augjax.train import checkpoint, folder, metrics, Source
from augjax.types import Knobs, stateless
from train.helpers import (
    assert_same_run, knobs, objective, phase, pictures, recipe, small, three_phases,
)


def train_on_one(made, workdir, **options):
    return train.run(made, workdir, devices=jax.devices()[:1], **options)


def distilling(teacher=None, student=None, **options):
    made = objective({"kd": losses.hinton()},
                     {"student": student or small(4), "teacher": teacher or small()})
    options.setdefault("frozen", {"teacher": Source("teacher")})
    return phase("student", made, **options)


TEACHER = phase("teacher", structure="refused")
KD = {"kd": losses.hinton()}
LATE_SHARE = replace(objective(), pick=method.top(lambda s: s.rows.lam, ("train",), 0.4))
OTHER_LEARNER = Source("teacher", learner="peer")
NOT_THERE = Source("teacher", "/nowhere/at/all", origin=TEACHER)

REFUSED = {
    "no phases": ([], "phases: expected at least one"),
    "a phase twice": ([TEACHER, TEACHER], "different names, got .*'teacher', 'teacher'"),
    "a reserved name": ([phase("seed")], "phase name: .* reserved word 'seed'"),
    "a weight too few": (
        [phase(knobs=knobs(()))], r"only.weights: .*each of \['ce'\], got \[\]. Name the terms"),
    "a weight too many": (
        [phase(knobs=knobs(("ce", "kd")))], r"only.weights: .*\['ce'\], got \['ce', 'kd'\]"),
    "no source for an onlooker": (
        [TEACHER, distilling(frozen={})], r"student.frozen: .*\['teacher'\], got \[\]"),
    "a source for nobody": (
        [TEACHER, phase(frozen={"teacher": Source("teacher")})],
        r"only.frozen: .*\[\], got \['teacher'\]"),
    "a start for nobody": (
        [TEACHER, phase(init={"studnet": Source("teacher")})],
        "only.init: .*Did you mean 'student'"),
    "a source that does not exist": (
        [TEACHER, distilling(frozen={"teacher": Source("teecher")})],
        "source of 'teacher' in phase 'student': .*got 'teecher'. Did you mean 'teacher'"),
    "a source from the future": (
        [distilling(frozen={"teacher": Source("later")}), phase("later")],
        "source of 'teacher' in phase 'student': .*got 'later'"),
    "a source from itself": (
        [TEACHER, distilling(frozen={"teacher": Source("student")})], "got 'student'"),
    "a learner that the source never trained": (
        [TEACHER, distilling(frozen={"teacher": OTHER_LEARNER})],
        "student.frozen.teacher: learner: expected one of 'student', got 'peer'"),
    "an average that was not kept": (
        [TEACHER, distilling(frozen={"teacher": Source("teacher", weights="ema")})],
        "student.frozen.teacher: expected a phase that kept an average, got weights = ema"),
    "a run folder that does not exist": (
        [distilling(frozen={"teacher": NOT_THERE})], "a saved step of phase 'teacher'.*nowhere"),
    "a network of other widths": (
        [TEACHER, distilling(teacher=small(5))],
        r"student.frozen.teacher: .*conv/kernel.*\(3, 3, 3, 5\).*\(3, 3, 3, 8\)"),
    "a start of other widths": (
        [TEACHER, phase(made=objective(nets={"student": small(5)}),
                        init={"student": Source("teacher")})], r"only.init.student: .*conv/kernel"),
    "a student of other classes": (
        [phase(made=objective(nets={"student": small(classes=7)}))],
        "classes of 'student' in phase 'only': expected 4, as the data set 'pictures' has, got 7"),
    "a teacher of other classes": (
        [TEACHER, distilling(teacher=small(classes=7))],
        "classes of 'teacher' in phase 'student': expected 4.*got 7"),
    "a batch larger than the data": ([phase(batch_size=97)], "only.batch_size: .*1 to 96.*got 97"),
    "an empty batch": ([phase(batch_size=0)], "only.batch_size"),
    "no epochs": ([phase(epochs=0)], "only.epochs: expected more than 0"),
    "no time between evaluations": (
        [phase(evaluate_epochs=0)], "only.evaluate_epochs: .*more than 0"),
    "a glob that names nothing": (
        [phase(made=objective(trains=("nets/student/haed/*",)))],
        "only.trains: .*got 'nets/student/haed/\\*'"),
    "one glob of two that names nothing": (
        [phase(made=objective(trains=("nets/*", "terms/*")))], "only.trains: .*got 'terms/\\*'"),
    "a share that leaves half rows, in a later phase": (
        [TEACHER, phase(made=LATE_SHARE)], "pick.share: .*whole number of rows"),
    "a term that asks for a silent network, in a later phase": (
        [TEACHER, phase(made=objective(KD))], "network scored by hinton: .*got 'teacher'"),
    "a loss of every row, in a later phase": (
        [TEACHER, phase(made=objective({"rows": stateless(lambda s: s.rows.lam)}))],
        r"only.terms.rows: expected one number, got an array \(16,\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_happens(name, tmp_path):
    phases, sentence = REFUSED[name]
    made = replace(recipe(), phases=phases)
    with pytest.raises(check.AugjaxError, match=sentence) as caught:
        train_on_one(made, tmp_path)
    assert caught.value.exit_code == (4 if "run folder" in name else 2)
    text = str(caught.value)
    assert text.endswith((".", "?")) and "expected" in text and "got" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field, value", [("log_every", 0), ("keep", 0), ("save_epochs", 0.0)])
def test_numbers_of_a_recipe_that_make_no_sense_are_refused(tmp_path, field, value):
    with pytest.raises(check.ConfigError, match=f"{field}: expected"):
        train_on_one(recipe(TEACHER, **{field: value}), tmp_path)


def test_the_classes_of_another_runs_teacher_are_compared(tmp_path):
    """A teacher of seven classes in another folder, for data of four."""
    there = phase("teacher", objective(nets={"student": small(classes=7)}))
    seven = replace(pictures(), class_names=tuple("abcdefg"))
    train_on_one(recipe(there, data=seven), tmp_path / "there")
    source = Source("teacher", str(tmp_path / "there"), origin=there)
    with pytest.raises(check.ConfigError, match="student.frozen.teacher: .*head.*got"):
        train_on_one(recipe(distilling(frozen={"teacher": source})), tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(tmp_path):
    train_on_one(recipe(TEACHER), tmp_path / "there")
    source = Source("teacher", str(tmp_path / "there"), step=5, origin=TEACHER)
    with pytest.raises(check.CheckpointError, match=r"got steps \[6\]"):
        train_on_one(recipe(distilling(frozen={"teacher": source})), tmp_path / "here")


# --- the run folder ------------------------------------------------------------------------------


def test_another_config_is_refused_and_the_fields_are_printed(tmp_path):
    def config(seed, rate, every):
        student = {"optimizer": {"rate": rate}, "terms": ["ce"]}
        return {"seed": seed, "student": student, "log": {"every": every}}

    there, here = config(0, 0.1, 5), config(1, 0.2, 9)
    made = recipe(phase(structure="fields"))
    train_on_one(made, tmp_path, description=there)
    log = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(check.ConfigError, match="seed: 0 there, 1 now; "
                       "student.optimizer.rate: 0.1 there, 0.2 now") as caught:
        train_on_one(made, tmp_path, description=here)
    assert "log" not in str(caught.value) and "terms" not in str(caught.value)
    assert json.loads((tmp_path / "config.json").read_text()) == there
    assert (tmp_path / "metrics.jsonl").read_text() == log
    for missing in ({**there, "more": 1}, {k: v for k, v in there.items() if k != "student"}):
        with pytest.raises(check.ConfigError, match="more: None there, 1 now|student"):
            train_on_one(made, tmp_path, description=missing)
    train_on_one(made, tmp_path, description={**there, "log": {"every": 9}})


def test_a_recipe_made_in_python_is_compared_as_far_as_it_can_be_told(tmp_path):
    train_on_one(three_phases(), tmp_path)
    with pytest.raises(check.ConfigError, match="student.epochs: 1.5 there, 2.0 now"):
        train_on_one(three_phases(epochs=2.0), tmp_path)


HOLD = """
import sys, time
from augjax.train import folder
from pathlib import Path
with folder.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_and_a_kill_lets_go(tmp_path):
    made = recipe(phase(structure="fields"))
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], text=True,
                             stdout=subprocess.PIPE, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(check.ConfigError, match=f"no other run in it, got pid {first.pid} on"):
            train_on_one(made, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    finally:
        first.kill()
        first.communicate()
    train_on_one(made, tmp_path)


def test_a_run_that_ended_with_an_error_lets_go(tmp_path):
    with pytest.raises(RuntimeError), folder.held(tmp_path):
        raise RuntimeError
    with folder.held(tmp_path):
        pass


# --- numbers gone bad ----------------------------------------------------------------------------


def poisoned(at: int, value=float("nan"), where="weight", **options):
    """A phase of 12 steps whose update `at` (counted from 1) is poisoned."""
    def schedule(good):
        return lambda clock: np.where(clock.step == at - 1, value, good).astype(np.float32)

    turned = Knobs({}, {"ce": schedule(1.0) if where == "weight" else 1.0},
                   schedule(0.1) if where == "rate" else 0.1)
    return recipe(phase(knobs=turned, epochs=2, structure="poisoned"), **options)


@pytest.mark.parametrize("at", [1, 4, 6, 7, 12])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_bad_step_is_named_and_never_saved(tmp_path, at, value):
    """Found at the next row of the log, at the latest before the next save."""
    made = poisoned(at, value, log_every=4, save_epochs=0.5, keep=9)
    with pytest.raises(check.NumericsError, match=f"first at step {at}") as caught:
        train_on_one(made, tmp_path)
    assert caught.value.exit_code == 5
    good = [step for step in (3, 6, 9, 12) if step < at]
    assert checkpoint.steps(tmp_path, "only") == good
    for step in good:
        checkpoint.verify(checkpoint.folder_of(tmp_path, "only", step))
    assert all(np.isfinite(row["loss"]) and row["step"] < at for row in metrics.read(tmp_path))


def test_a_bad_learning_rate_counts_too(tmp_path):
    with pytest.raises(check.NumericsError, match="first at step 5"):
        train_on_one(poisoned(5, float("inf"), where="rate"), tmp_path)


def test_a_gradient_may_go_bad_before_the_loss(tmp_path):
    """The square root of nothing: 0, with an infinite slope."""
    flat = stateless(lambda signals: jnp.sqrt(0 * signals.outputs["student"].logits.sum()))
    made = objective({"ce": losses.cross_entropy(), "flat": flat})
    with pytest.raises(check.NumericsError, match="first at step 1"):
        train_on_one(recipe(phase(made=made)), tmp_path)
    assert checkpoint.steps(tmp_path, "only") == []


def test_after_bad_numbers_the_same_command_meets_them_again_and_a_cure_goes_on(tmp_path):
    bad, good = poisoned(8, save_epochs=0.5), poisoned(99, save_epochs=0.5)
    for _ in range(2):
        with pytest.raises(check.NumericsError, match="first at step 8"):
            train_on_one(bad, tmp_path)
    assert checkpoint.steps(tmp_path, "only") == [3, 6]
    train_on_one(good, tmp_path)
    train_on_one(good, tmp_path.with_name(tmp_path.name + "-well"))
    assert_same_run(tmp_path, tmp_path.with_name(tmp_path.name + "-well"), ["only"])

"""Numbers gone bad, pruned weights that come back, too little memory, steps that do not repeat:
rows 18, 19, 20, 27 and 30."""

from dataclasses import replace
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, compress, data, train
from augjax.train import checkpoint, failures, loop, report, start
from train.helpers import assert_same_run, phase, recipe, rows, saved, three_phases
from train.test_refusals import poisoned

ONE = jax.devices()[:1]


# --- row 18 --------------------------------------------------------------------------------------


def test_a_bad_step_leaves_what_repeats_it(tmp_path):
    """The dump names the images, the key and the knobs of that very update."""
    made = poisoned(8, save_epochs=0.5)
    with pytest.raises(check.NumericsError, match=r"first at step 8, .*bad_step\.json"):
        train.run(made, tmp_path, devices=ONE)
    told = json.loads((tmp_path / failures.BAD_STEP).read_text())
    assert (told["phase"], told["step"]) == ("only", 8)
    order = data.order(made.seed, 1, 96)  # step 8 is the second of the second epoch
    assert told["images"] == order[16:32].tolist()
    assert told["labels"] == [int(index) % 4 for index in order[16:32]]
    assert np.isnan(told["knobs"]["weights/ce"]) and told["knobs"]["learning_rate"] == (
        pytest.approx(0.1))
    key = jax.random.fold_in(start.phase_key(made, made.phases[0]), 7)
    assert told["key"] == jax.random.key_data(key).tolist()
    assert checkpoint.steps(tmp_path, "only") == [3, 6]


def test_the_dump_has_every_number_of_a_policy(tmp_path):
    part = three_phases().phases[1]
    told = failures.facts_of_step(three_phases(), part, 4)
    assert set(told["knobs"]) >= {"policies/train/magnitude", "weights/ce", "weights/kd",
                                  "learning_rate", "clock/step"}
    assert told["knobs"]["clock/step"] == 4
    assert told["knobs"]["policies/train/magnitude"] == pytest.approx(24 * (1 - 4 / 9))


def test_images_fed_by_the_host_are_named_too():
    made = three_phases()
    fed = replace(made, resident=False)
    one, other = (failures.facts_of_step(each, each.phases[1], 7) for each in (made, fed))
    assert one == other


def test_a_dump_that_finds_no_room_hides_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report.folder, "write_json", full)
    made = poisoned(4)
    reporter = report.Reporter(made, made.phases[0], tmp_path, 0)
    with pytest.raises(check.NumericsError, match="first at step 4"):
        reporter._require_finite(3)
    reporter.close()


# --- row 19 --------------------------------------------------------------------------------------


def spoiled(monkeypatch, which: str, after: int = 4) -> None:
    """From there on a number of the statistics, or of the average's, is NaN; the loss never is."""
    pend = report.Reporter.pend

    def seen(reporter, step, told):
        pend(reporter, step, told)
        assert np.isfinite(float(told["metrics"]["loss"]))

    monkeypatch.setattr(report.Reporter, "pend", seen)
    between = loop.between

    def spoil(shared, part, state, step, reporter):
        if part.name == "student" and step == after:
            tree = state.stats if which == "stats" else state.ema
            leaves, form = jax.tree.flatten(tree)
            leaves = [leaf * np.float32("nan") for leaf in leaves]
            object.__setattr__(state, "stats" if which == "stats" else "ema",
                               jax.tree.unflatten(form, leaves))
        between(shared, part, state, step, reporter)

    monkeypatch.setattr(loop, "between", spoil)


@pytest.mark.parametrize("which, named", [("stats", "loss"), ("ema", "ema_loss")])
def test_nan_in_statistics_alone_is_caught_before_a_row_is_written(
        tmp_path, monkeypatch, which, named):
    with monkeypatch.context() as patch:
        spoiled(patch, which)
        with pytest.raises(check.NumericsError, match=named) as caught:
            train.run(three_phases(), tmp_path, devices=ONE)
    assert caught.value.exit_code == 5 and "evaluation of step 4" in str(caught.value)
    told = rows(tmp_path, "eval")
    assert [row["step"] for row in told if row["phase"] == "student"] == []
    assert all(np.isfinite(value) for row in told for value in row.values()
               if isinstance(value, float))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["phases"]) == ["teacher"]  # so no best was chosen from it
    train.run(three_phases(), tmp_path, devices=ONE)  # the last save is before the fault
    assert checkpoint.steps(tmp_path, "student")[-1] == 9


def test_statistics_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    """Else no start would come past that save."""
    with monkeypatch.context() as patch:
        spoiled(patch, "stats", after=2)
        with pytest.raises(check.NumericsError, match="first at step 3"):
            train.run(three_phases(), tmp_path, devices=ONE)
    assert checkpoint.steps(tmp_path, "student") == []
    train.run(three_phases(), tmp_path, devices=ONE)
    assert checkpoint.steps(tmp_path, "student")[-1] == 9


# --- row 20 --------------------------------------------------------------------------------------


def test_a_pruned_weight_that_becomes_nonzero_is_never_seen(tmp_path):
    """The mask lies beside the weights: what is under it may be anything, and is shown as 0."""
    made = three_phases()
    train.run(made, tmp_path, devices=ONE)
    state = saved(tmp_path, "pruned")
    part, prefix = made.phases[2], "params/nets/student/"
    params = {"student": _nested({path.removeprefix(prefix): leaf for path, leaf in state.items()
                                  if path.startswith(prefix)})}
    masks = {path.removeprefix("transform/"): leaf for path, leaf in state.items()
             if path.startswith("transform/")}
    masks = {"student/conv/kernel": masks["student/conv/kernel"],
             "student/head/kernel": masks["student/head/kernel"]}
    raised = jax.tree.map(np.copy, params)
    for path, mask in masks.items():
        _, layer, leaf = path.split("/")
        raised["student"][layer][leaf][~mask] = 1e9
    shown = [part.objective.transform.apply(tree, masks) for tree in (params, raised)]
    jax.tree.map(np.testing.assert_array_equal, *shown)
    assert compress.sparsity({k: jnp.asarray(v) for k, v in masks.items()})["total"] == (
        pytest.approx(0.5, abs=0.01))


def _nested(flat: dict) -> dict:
    nested: dict = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        branch = nested
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[name] = leaf
    return nested


# --- row 27 --------------------------------------------------------------------------------------

FULL = "RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes.\nmore"


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError(FULL), MemoryError()])
def test_too_little_memory_says_what_would_help(error):
    part = phase("student", batch_size=16)
    with pytest.raises(check.ConfigError) as caught, failures.within_memory(part):
        raise error
    said = str(caught.value)
    assert caught.value.exit_code == 2 and len(said.splitlines()) == 1
    for word in ("16 images", "student.accumulate=2", "student.batch_size", "fsdp", "--dry_run"):
        assert word in said
    assert ("68719476736 bytes" in said) == bool(error.args)


def test_other_failures_of_a_device_are_left_as_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        with failures.within_memory(phase()):
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_a_device_without_room_says_so_itself():
    """The error that `within_memory` waits for is the one that XLA raises."""
    with pytest.raises(check.ConfigError, match="to fit into the memory"):
        with failures.within_memory(phase()):
            jax.block_until_ready(jax.jit(lambda: jnp.zeros((1 << 30, 1 << 30)) + 1)())


@pytest.mark.parametrize("where", ["place_data", "compile_step", "sources"])
def test_a_run_without_room_ends_with_a_sentence_whose_advice_may_be_taken(
        tmp_path, monkeypatch, where):
    def full(*_):
        raise jax.errors.JaxRuntimeError(FULL)

    for wanted in ({"asked": 1}, {"asked": 2}):  # the second start's config is another
        with monkeypatch.context() as patch, pytest.raises(
                check.ConfigError, match="phase 'teacher', 16 images an update"):
            patch.setattr(loop, where, full)
            train.run(three_phases(), tmp_path, wanted, devices=ONE)


# --- row 30 --------------------------------------------------------------------------------------


def test_a_step_made_twice_changes_nothing(tmp_path):
    for name, sure in (("sure", True), ("plain", False)):
        train.run(three_phases(deterministic=sure), tmp_path / name, devices=ONE)
    assert_same_run(tmp_path / "plain", tmp_path / "sure")


def test_a_step_that_does_not_repeat_ends_the_run(tmp_path, monkeypatch):
    """A kernel that adds in another order each time; here the second call is off by one bit."""
    compile_step, calls = loop.compile_step, []

    def unsure(*given):
        update = compile_step(*given)

        def call(state, *rest):
            calls.append(len(calls))
            after, report = update(state, *rest)
            if len(calls) == 2:
                mean = after.stats["student"]["norm"]["mean"]
                after.stats["student"]["norm"]["mean"] = mean.at[0, 0].set(
                    jnp.nextafter(mean[0, 0], jnp.inf))
            return after, report
        return call

    monkeypatch.setattr(loop, "compile_step", unsure)
    with pytest.raises(check.NumericsError, match=r"in 1 arrays: stats/student/norm/mean \(1\)"):
        train.run(recipe(phase(epochs=1), deterministic=True), tmp_path, devices=ONE)
    assert calls == [0, 1] and checkpoint.steps(tmp_path, "only") == []
    train.run(recipe(phase(epochs=1)), tmp_path, devices=ONE)  # nobody asked

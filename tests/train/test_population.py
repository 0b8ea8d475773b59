"""A member of a population is a lone run: its rows, its saves, its failures and its stops."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, train
from augjax.train import checkpoint, loop, metrics, population, ready, start, together
from augjax.train.stop import Stop
from augjax.train.together import Member, run_together
import helpers

DATA = helpers.pictures(holdout_images=20)
TURNED = (  # what members differ in: arrays all
    dict(seed=0), dict(seed=1, magnitude=4.0), dict(seed=0, kd=0.2), dict(seed=3, rate=0.02))
DEVICES = jax.devices()


def recipes(count=3, **options):
    return [helpers.three_phases("population", data=DATA, **turned, **options)
            for turned in TURNED[:count]]


def trained(folder, made, lowering, devices):
    members = [Member(recipe, folder / str(number)) for number, recipe in enumerate(made)]
    return [member.workdir for member in members], run_together(members, lowering, devices)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run folders of the members, each trained by itself on one device."""
    folder = tmp_path_factory.mktemp("alone")
    for number, recipe in enumerate(recipes(4)):
        train.run(recipe, folder / str(number), devices=DEVICES[:1])
    return [folder / str(number) for number in range(4)]


def equal_rows(one, other, exactly=("pixels", "order", "epoch", "step", "kind", "phase")):
    """The rows of two run folders: pixels and order to the bit, numbers to rounding."""
    for mine, theirs in zip(helpers.rows(one), helpers.rows(other), strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            if name in exactly:
                assert mine[name] == theirs[name], name
            else:
                np.testing.assert_allclose(mine[name], theirs[name], 2e-3, 2e-3, err_msg=name)


@pytest.mark.parametrize("lowering, members, devices", [
    ("looped", 2, 1), ("stacked", 2, 1), ("stacked", 3, 2), ("stacked", 4, 8)])
def test_a_member_equals_its_lone_run(tmp_path, alone, lowering, members, devices):
    places, failed = trained(tmp_path, recipes(members), lowering, DEVICES[:devices])
    assert not failed
    for mine, lone in zip(places, alone):
        equal_rows(mine, lone)
        phases = [json.loads((place / "summary.json").read_text())["phases"]
                  for place in (mine, lone)]
        assert phases[0]["pruned"]["nonzero"] == phases[1]["pruned"]["nonzero"]
        ours, theirs = helpers.saved(mine, "pruned"), helpers.saved(lone, "pruned")
        for path in theirs:
            if lowering == "looped":
                np.testing.assert_array_equal(ours[path], theirs[path], path)
            else:
                np.testing.assert_allclose(ours[path], theirs[path], 2e-3, 2e-3, err_msg=path)


def test_members_differ(alone):
    """Otherwise the test above would not see members that were exchanged."""
    last = [helpers.rows(place, "train")[-1]["loss"] for place in alone]
    assert len(set(last)) == len(last)


def test_one_program_for_all_members(tmp_path):
    ready.forget()
    made = recipes(2)
    trained(tmp_path / "a", made, "stacked", DEVICES[:1])
    events = metrics.read_events(tmp_path / "a" / "0") + metrics.read_events(tmp_path / "a" / "1")
    kinds = [event["what"] for event in events if event["event"] == "compiled"]
    assert sorted(set(kinds)) == ["2 steps", "evaluate", "start"]
    assert len(kinds) == 6  # the teacher's and the student's, which are the pruned one's
    trained(tmp_path / "b", made, "stacked", DEVICES[:1])
    events = [event["event"] for event in metrics.read_events(tmp_path / "b" / "0")]
    assert "compiled" not in events


def test_a_member_fails_alone(tmp_path, alone):
    """Its seat is taken by a copy of another, so that the devices stay evenly filled."""
    made = [*recipes(1), helpers.three_phases("population", data=DATA, seed=1, kd=float("inf"))]
    places, failed = trained(tmp_path, made, "stacked", DEVICES[:2])
    assert list(failed) == [1] and isinstance(failed[1], check.NumericsError)
    assert checkpoint.steps(places[1], "teacher") and not checkpoint.steps(places[1], "student")
    equal_rows(places[0], alone[0])


def test_who_is_refused_leaves_the_others_alone(tmp_path, alone):
    (tmp_path / "0/checkpoints/teacher/3").mkdir(parents=True)
    (tmp_path / "0/checkpoints/teacher/3/array").touch()
    (tmp_path / "0/config.json").write_text('{"made_in": "another house"}')
    places, failed = trained(tmp_path, recipes(2), "stacked", DEVICES[:1])
    assert list(failed) == [0] and isinstance(failed[0], check.ConfigError)
    equal_rows(places[1], alone[1])


@pytest.mark.parametrize("stops_at", [4, 12])
def test_stopped_and_continued(tmp_path, alone, monkeypatch, stops_at):
    """A stop in the middle of a phase: all are saved; the next start goes on from there."""
    calls = []

    def keep(crew, step, reports):
        calls.append(step)
        crew.seats[0].run.stop.asked = len(calls) == stops_at // 2
        kept(crew, step, reports)

    kept = together.keep
    monkeypatch.setattr(together, "keep", keep)
    with pytest.raises(check.Preempted):
        trained(tmp_path, recipes(2), "stacked", DEVICES[:1])
    places = [tmp_path / "0", tmp_path / "1"]
    steps = [[checkpoint.steps(place, phase) for phase in helpers.LAST] for place in places]
    assert steps[0] == steps[1]
    monkeypatch.undo()
    assert not trained(tmp_path, recipes(2), "stacked", DEVICES[:1])[1]
    for mine, lone in zip(places, alone):
        equal_rows(mine, lone)


def test_who_is_ahead_waits_for_nobody(tmp_path, alone, monkeypatch):
    """Members at different steps, as a kill between two saves leaves them."""
    first = recipes(1)[0]
    monkeypatch.setattr(loop, "finish_phase", _fails)
    with pytest.raises(check.CheckpointError):
        train.run(first, tmp_path / "0", devices=DEVICES[:1])
    monkeypatch.undo()
    places, failed = trained(tmp_path, recipes(2), "stacked", DEVICES[:1])
    assert not failed
    for mine, lone in zip(places, alone):
        equal_rows(mine, lone)


def _fails(*arguments):
    raise check.CheckpointError("the disk is full")


def test_unlike_runs_are_refused(tmp_path):
    other = helpers.three_phases("population", data=DATA, epochs=1.0)
    for made in ([recipes(1)[0], other], [helpers.three_phases(None, data=DATA)] * 2):
        with pytest.raises(check.ConfigError, match="differ in arrays alone"):
            trained(tmp_path, made, "stacked", DEVICES[:1])
    with pytest.raises(check.ConfigError, match="population lowering"):
        trained(tmp_path, recipes(1), "stakced", DEVICES[:1])


# --- exploit and scores, as a search uses them ---------------------------------------------------


@pytest.fixture(scope="module", params=["looped", "stacked"])
def begun(request, tmp_path_factory):
    """(population, its members, its run) of four teachers that have begun."""
    made, folder = recipes(4), tmp_path_factory.mktemp("begun")
    mesh = train.make_mesh(DEVICES[:1])
    with jax.set_mesh(mesh):
        runs = [ready.Run(recipe, folder / str(number), mesh, Stop(),
                          checkpoint.Writer(folder / str(number), 1),
                          start.all_shapes(recipe, mesh)) for number, recipe in enumerate(made)]
        for run in runs:
            run.resident = ready.place_data(run.recipe, mesh)
        phase = made[0].phases[0]
        states = [ready.ready(run, run.recipe.phases[0], 0)[0] for run in runs]
        many = population.make_population(runs[0], phase, states[0], {}, 4, request.param)
        yield many, many.join(states), runs[0]


def test_choose_takes_everything_but_the_key(begun):
    many, members, run = begun
    before = [many.part(members, own) for own in range(4)]
    before = [jax.tree.map(helpers.raw, state) for state in before]
    chosen = many.choose(members, [0, 3, 2, 3])
    for own, donor in enumerate([0, 3, 2, 3]):
        state = jax.tree.map(helpers.raw, many.part(chosen, own))
        np.testing.assert_array_equal(state.key, before[own].key)
        assert jax.tree.all(jax.tree.map(np.array_equal, state.params, before[donor].params))
        assert jax.tree.all(jax.tree.map(np.array_equal, state.opt_state, before[donor].opt_state))
    assert not np.array_equal(before[0].params["nets"]["student"]["conv"]["kernel"],
                              before[3].params["nets"]["student"]["conv"]["kernel"])


def test_scores_are_accuracies(begun):
    many, members, run = begun
    phase = run.recipe.phases[0]
    found = many.score(members, ready.evaluation_batches(run, phase, "holdout"))
    for own in range(4):
        state = many.part(members, own)
        logits = phase.objective.nets["student"].predict(
            (state.params["nets"]["student"], state.stats["student"]),
            helpers.plain(None, _batch(DATA.holdout), None)).logits
        assert found[own] == np.mean(jnp.argmax(logits, -1) == DATA.holdout.labels)


def _batch(source):
    from augjax.types import Batch

    images, labels = source.read(np.arange(len(source))), source.labels
    return Batch(jnp.asarray(images), jnp.asarray(labels, jnp.int32), jnp.arange(len(source)))

"""Parts that later methods bring, through whole runs: saved, resumed, handed on, evaluated."""

from dataclasses import replace
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, compress, losses, train, tree
from augjax.train import Source, stop
from augjax.types import Knobs, stateless, Term, View
from train.helpers import (
    assert_equal_trees, assert_same_run, knobs, noisy, objective, phase, plain, prune, recipe, rows,
    saved, small,
)


def train_on_one(made, workdir):
    train.run(made, workdir, devices=jax.devices()[:1])
    return workdir


def interrupted(monkeypatch, made, workdir, after: int):
    """Trains until `after` updates are done, then goes on to the end."""
    with monkeypatch.context() as patch:
        patch.setattr(stop.Stop, "due", lambda stop, step: step == after)
        with pytest.raises(check.Preempted):
            train_on_one(made, workdir)
    return train_on_one(made, workdir)


# --- a term with parameters and a memory ---------------------------------------------------------


def remembering(images: int = 96, size: int = 5, momentum: float = 0.5) -> Term:
    """As CRD: pulls a projection of every image towards what was remembered of the image."""

    def init(key, signals):
        width = signals.outputs["student"].pooled.shape[-1]
        first, second = jax.random.split(key)
        return ({"kernel": jax.random.normal(first, (width, size))},
                {"memory": jax.random.normal(second, (images, size))})

    def apply(params, state, signals, key):
        index = signals.rows.index
        seen = signals.outputs["student"].pooled @ params["kernel"]
        seen = seen + 0.1 * jax.random.normal(key, seen.shape)  # as CRD draws its negatives
        memory = state["memory"].at[index].set(
            momentum * state["memory"][index] + (1 - momentum) * seen)
        return jnp.mean((seen - state["memory"][index]) ** 2), {"memory": memory}

    return Term(init, apply)


def test_a_terms_parameters_and_memory_survive_a_stop(monkeypatch, tmp_path):
    made = objective({"ce": losses.cross_entropy(), "crd": remembering()}, views=noisy)
    turned = Knobs({"train": {"magnitude": 9.0}}, {"ce": 1.0, "crd": 0.5}, 0.01)
    part = phase("only", made, epochs=1.5, knobs=turned, optimizer=train.adam(), structure="crd")
    made = recipe(part, keep=9)
    whole = train_on_one(made, tmp_path / "whole")
    split = interrupted(monkeypatch, made, tmp_path / "split", after=4)
    assert_same_run(whole, split, ["only"])
    first, last = saved(split, "only", 4), saved(split, "only", 9)
    for path in ("params/terms/crd/kernel", "terms/crd/memory", "opt_state/1/mu/terms/crd/kernel"):
        assert not np.array_equal(first[path], last[path])
    remembered = (first["terms/crd/memory"] == saved(whole, "only", 6)["terms/crd/memory"]).all(1)
    assert remembered.sum() == 64  # steps 5 and 6 of the first epoch wrote the other 32 images


# --- two learners --------------------------------------------------------------------------------


def mutual(**options):
    """Deep mutual learning of networks of two sizes."""
    def towards(learner, other):
        def loss(signals):
            said = signals.outputs
            return losses.kd(said[learner].logits, said[other].logits, 1.0, False, "kl").mean()

        return stateless(loss)

    return objective(
        {"ce": losses.cross_entropy(), "kd": towards("student", "peer"),
         "ce_peer": losses.cross_entropy(net="peer"), "kd_peer": towards("peer", "student")},
        {"student": small(8), "peer": small(4)}, ("student", "peer"), **options)


def test_two_masked_learners_train_are_evaluated_and_handed_on(monkeypatch, tmp_path):
    both = mutual(transform=compress.mask(("student", "peer")))
    pair = phase("pair", both, ema=0.9, edits=(prune(0.5),), structure="pair")
    taught = objective(
        {"kd": losses.hinton(teacher="peer")}, {"student": small(4), "peer": small(4)})
    single = phase("single", taught, structure="single",
                   frozen={"peer": Source("pair", learner="peer", weights="ema")})
    made = recipe(pair, single)
    whole = train_on_one(made, tmp_path / "whole")
    masks = saved(whole, "pair")
    frozen = saved(whole, "single", "frozen")
    for layer in ("conv", "head"):
        mask = masks[f"transform/peer/{layer}/kernel"]
        assert np.array_equal(frozen[f"peer/0/{layer}/kernel"] != 0, mask)
    split = interrupted(monkeypatch, made, tmp_path / "split", after=4)
    assert_same_run(whole, split, ["pair", "single"])


# --- several teachers ----------------------------------------------------------------------------


def test_the_mean_of_two_equal_teachers_is_one_teacher(tmp_path):
    def mean_of_two(signals):
        said = signals.outputs
        mean = (said["first"].logits + said["second"].logits) / 2
        return losses.kd(said["student"].logits, mean, 4.0, True, "kl").mean()

    one = objective({"kd": losses.hinton(teacher="first")},
                    {"student": small(4), "first": small()})
    two = objective({"kd": stateless(mean_of_two)},
                    {"student": small(4), "first": small(), "second": small()})
    logs = []
    for made, names in ((one, ("first",)), (two, ("first", "second"))):
        parts = (phase("teacher", structure="t"), phase(
            "student", made, frozen={name: Source("teacher") for name in names}))
        workdir = train_on_one(recipe(*parts), tmp_path / str(len(names)))
        logs.append(rows(workdir))
        digests = json.loads((workdir / "checkpoints/student/frozen.json").read_text())
        assert set(digests) == set(names) and len({d["sha256"] for d in digests.values()}) == 1
    for a, b in zip(*logs):
        assert all(a[k] == b[k] or np.isclose(a[k], b[k], rtol=1e-5) for k in a)


# --- domains and resting parameters --------------------------------------------------------------


def weak_and_strong(key, batch, policies):
    """Every image as it is (domain 0) and noisy (domain 1)."""
    both = plain(key, batch, policies), noisy(key, batch, policies)
    merged = jax.tree.map(
        lambda *leaves: jnp.stack(leaves, 1).reshape(-1, *leaves[0].shape[1:]), *both)
    return replace(merged, views=(View("weak"), View("strong", domain=1)))


def recalibrated(tmp_path, magnitude: float):
    """A trained network whose statistics alone then move; (before, after), both saves."""
    made = objective(nets={"student": small(domains=2)}, views=weak_and_strong)
    turn = {"knobs": knobs(("ce",), 0.1, magnitude=magnitude), "ema": 0.9,
            "optimizer": train.sgd(0.9, weight_decay=0.01)}
    parts = (phase("train", made, **{**turn, "knobs": knobs(("ce",), 0.1, magnitude=5.0)},
                   structure="domains"),
             phase("recalibrate", replace(made, trains=("stats/*",)), **turn,
                   init={"student": Source("train")}, structure="recalibrate"))
    workdir = train_on_one(recipe(*parts), tmp_path / str(magnitude))
    return saved(workdir, "train"), saved(workdir, "recalibrate")


def test_recalibration_moves_each_domains_statistics_and_no_parameter(tmp_path):
    before, quiet = recalibrated(tmp_path, 0.0)
    same, loud = recalibrated(tmp_path, 120.0)
    assert_equal_trees(before, same)
    for after in (quiet, loud):
        assert_equal_trees(before, after, "params/nets")
        for path in before:  # the average of what rests is what rests
            if path.startswith("ema/nets"):
                assert np.array_equal(after[path], before[path.replace("ema/", "params/")]), path
    for name in ("mean", "var"):
        was, still, moved = (save[f"stats/student/norm/{name}"] for save in (before, quiet, loud))
        assert np.array_equal(still[0], moved[0]) and not np.array_equal(still[1], moved[1])
        assert not np.array_equal(was[0], still[0])


def test_a_part_of_the_statistics_may_rest(tmp_path):
    """`trains` may name one statistic; the other stays bit for bit."""
    first = phase("train", structure="whole")
    resting = phase("mean", objective(trains=("stats/student/norm/mean", "nets/student/head/*")),
                    init={"student": Source("train")})
    workdir = train_on_one(recipe(first, resting), tmp_path)
    before, after = saved(workdir, "train"), saved(workdir, "mean")
    moved = {path for path in before if path.startswith(("params", "stats"))
             and not np.array_equal(before[path], after[path])}
    assert moved == {"stats/student/norm/mean", "params/nets/student/head/kernel",
                     "params/nets/student/head/bias"}


# --- sources -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_run(tmp_path_factory):
    """A run with one phase, "teacher", and an average; saved at steps 3 and 6."""
    made = recipe(phase("teacher", ema=0.5, structure="other"), save_epochs=0.5)
    return made, train_on_one(made, tmp_path_factory.mktemp("other"))


@pytest.mark.parametrize("step", [None, 3])
@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_a_teacher_of_another_run_is_read_and_recorded(other_run, tmp_path, step, weights):
    made, there = other_run
    source = Source("teacher", str(there), step, weights, origin=made.phases[0])
    taught = objective({"kd": losses.hinton()}, {"student": small(4), "teacher": small()})
    part = phase("student", taught, frozen={"teacher": source}, structure="taught elsewhere")
    workdir = train_on_one(recipe(part), tmp_path)
    save, frozen = saved(there, "teacher", step), saved(workdir, "student", "frozen")
    prefixes = ("params/nets/student", "stats/student")
    if weights == "ema":
        prefixes = ("ema/nets/student", "ema/stats/student")
    for place, prefix in enumerate(prefixes):
        expected = {path.removeprefix(prefix): leaf for path, leaf in save.items()
                    if path.startswith(prefix)}
        assert expected
        for path, leaf in expected.items():
            assert np.array_equal(frozen[f"teacher/{place}{path}"], leaf)
    recorded = json.loads((workdir / "checkpoints/student/frozen.json").read_text())["teacher"]
    nested = {"": ({}, {})}
    for path, leaf in frozen.items():
        _, place, layer, name = path.split("/")
        nested[""][int(place)].setdefault(layer, {})[name] = leaf
    assert recorded["sha256"] == tree.digest(nested)
    assert str(there) in recorded["source"]


def test_a_student_may_start_from_an_average(other_run, tmp_path):
    made, there = other_run
    source = Source("teacher", str(there), 3, "ema", origin=made.phases[0])
    resting = objective(trains=("stats/*",))
    part = phase("only", resting, init={"student": source})
    workdir = train_on_one(recipe(part), tmp_path)
    begun, average = saved(workdir, "only"), saved(there, "teacher", 3)
    for path in average:
        if path.startswith("ema/nets/"):
            assert np.array_equal(begun[path.replace("ema/", "params/")], average[path])

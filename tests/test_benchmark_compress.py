"""What the compression rows time: that it is what they say, and that it runs."""

from functools import partial
import json
import sys

import jax
import numpy as np
import pytest

from augjax import compress, defaults
from augjax import models as zoo
from augjax.train import metrics
from augjax.types import Net, Outputs
from launch.benchmarks import compress as suite
from launch.benchmarks import gpu, measure, search
from launch.benchmarks.train import noise

CASE = suite.Case("three matrices", batch=4, pixels=2)


@pytest.fixture
def built(monkeypatch):
    """Networks of three matrices that see noise as it is; the hooks they were built with."""
    hooks = []

    def build(name, classes, image_shape, mean, std, dtype=None, activation=None, **options):
        hooks.append(activation)
        read = activation or (lambda x: x)

        def said(params, rows):
            x = rows.image.reshape(len(rows.image), -1) / 255.0
            for layer in ("stem", "body"):
                x = read(jax.nn.relu(x @ params[layer]["kernel"]))
            return Outputs(x @ params["head"]["kernel"], {}, x)

        def init(key):
            wide = (np.prod(image_shape), 8, 16, classes)
            keys = dict(zip(("stem", "body", "head"), jax.random.split(key, 3)))
            return {layer: {"kernel": jax.random.uniform(own, (rows, columns)) - 0.5}
                    for (layer, own), rows, columns in zip(keys.items(), wide, wide[1:])}, {}

        return Net(init, lambda variables, rows, key: (said(variables[0], rows), variables[1]),
                   lambda variables, rows, domain=0: said(variables[0], rows))

    monkeypatch.setattr(zoo, "build", build)
    view = defaults.view("none")  # crops and RandAugment would compile for half a minute
    monkeypatch.setattr(defaults, "view", lambda *arguments, **options: view)
    monkeypatch.setattr(suite.data, "digits", lambda pixels=16: noise(512))
    return hooks


def test_the_steps_see_edited_weights(built):
    edits = {"dense": suite.DENSE, "masked": suite.MASKED, "quantised": suite.QUANTISED}
    states = {name: suite.begun(CASE, edited)[1] for name, edited in edits.items()}
    assert built[:2] == [None, None]
    assert built[2](np.float32(0.41)) == pytest.approx(6 / 15)  # of 4 bits, spec C6
    assert compress.sparsity(states["masked"].transform["mask"])["total"] == pytest.approx(
        0.6, abs=0.005)
    assert states["quantised"].transform["dorefa"]["bits"] == 4
    assert states["dense"].transform == {}
    losses = {}
    for name, edited in edits.items():
        call = suite.stepping(CASE, edited)
        losses[name] = float(call()["loss"])
        metrics = call()  # of what the first has left, at rate 0
        assert metrics["loss"] == losses[name] and metrics["gradient_norm"] > 0
    assert len(set(losses.values())) == 3 and np.isfinite(list(losses.values())).all()


@pytest.fixture
def lasting(monkeypatch):
    """Makes calls that last so many seconds of a clock that nothing else moves."""
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def made(seconds):
        def call():
            now[0] += seconds
        return call
    return made


def test_a_row_is_the_edited_step_over_the_dense_one(lasting, monkeypatch):
    monkeypatch.setattr(suite, "stepping", lambda case, edited: lasting(
        0.1 if edited is suite.DENSE else 0.12))
    row = suite.over_dense(suite.MASKED, 1.25)("tiny")
    assert row["median"] == pytest.approx(1.2) and row["n"] == 20 and row["verdict"] == "met"
    assert "batch 32, 32 pixels; ms: dense 100.0; edited 120.0" in row["note"]
    assert suite.over_dense(suite.MASKED, 1.15)("tiny")["verdict"] == "missed"


def test_a_row_is_the_runs_in_sequence_over_the_population(lasting, monkeypatch):
    monkeypatch.setattr(suite, "recipes_of", lambda group: range(12))
    monkeypatch.setattr(suite, "advancing", lambda recipes, lowering, steps: (
        lasting(0.12), lasting(0.24), None))
    for lowering, verdict in (("looped", "met"), ("stacked", "reported")):
        row = suite.population_over_runs(lowering, model="tiny")("tiny")
        assert row["median"] == pytest.approx(2.0) and row["verdict"] == verdict
        assert "12 of tiny" in row["note"] and "population 10.00; alone 20.00" in row["note"]


def test_pruning_is_timed_warm(built, monkeypatch):
    prune, seen = compress.prune_l1, []

    def noted(params, masks, sparsity):
        seen.append(sparsity)
        return prune(params, masks, sparsity)

    monkeypatch.setattr(compress, "prune_l1", noted)
    row = suite.pruning("three matrices", pixels=2)("tiny")
    assert seen == [0.6] * 21 and row["n"] == 20 and row["verdict"] == "met"
    assert f"{12 * 8 + 8 * 16 + 16 * 1000:,} weights; the first time" in row["note"]


def test_a_next_run_is_timed_from_the_call_to_its_first_row(tmp_path, monkeypatch):
    """1.5 s to the phase, a row 0.25 s later, another that is not the first."""
    def run(made, workdir):
        for event, time in (("compiled", 100.5), ("compiled", 101.0), ("phase", 101.5)):
            monkeypatch.setattr(metrics.time, "time", lambda: time)
            metrics.note(workdir, event)
        rows = [{"kind": "train", "seconds": seconds} for seconds in (0.25, 0.5)]
        (workdir / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))

    monkeypatch.setattr(metrics.time, "time", lambda: 100.0)
    monkeypatch.setattr(suite.train, "run", run)
    assert suite.to_first_update(None, tmp_path) == (1.75, 2)


def test_a_studys_next_run_compiles_nothing(built, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # takes seconds to import
    monkeypatch.setattr(suite.train, "run", partial(suite.train.run, devices=jax.devices()[:1]))
    row = suite.next_run(CASE.model, later=1)("tiny")
    assert row["n"] == 1 and 0 < row["median"] < 60
    assert "; 0 compiled by the others" in row["note"]


@pytest.mark.parametrize("lowering", suite.AIMS)
def test_a_population_does_the_work_of_its_runs(built, lowering):
    group = suite.Group(CASE.model, (2.0,), seeds=3)
    recipes = suite.recipes_of(group)
    assert [made.seed for made in recipes] == [0, 1, 2]
    together, in_sequence, states = suite.advancing(recipes, lowering, steps=2)
    for call in (together, in_sequence) * 2:
        call()
    members, alone = states()
    for mine, lone in zip(members, alone, strict=True):
        assert mine.step == lone.step == 4
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, 1e-4, 1e-5),
                     mine.params, lone.params)
    kernels = [np.asarray(member.params["nets"]["student"]["body"]["kernel"]) for member in alone]
    assert not np.allclose(kernels[0], kernels[1]) and not np.allclose(kernels[1], kernels[2])


def test_the_rows_of_a_session_on_a_gpu():
    order = list(gpu.ROWS)
    own = [place for place, name in enumerate(order) if name in suite.FOR_GPUS]
    assert len(own) == len(suite.FOR_GPUS)
    assert order[own[0] - 1].startswith("depthwise") and order[own[-1] + 1] in search.ROWS
    assert own == list(range(own[0], own[0] + len(own)))
    assert all("population" in order[place] for place in own[:2])

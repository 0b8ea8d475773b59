"""What the distillation rows time: that it runs, and that a whole has the passes of its parts."""

from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import augment
from augjax.types import Net, Outputs
from launch.benchmarks import distill, measure, torch_steps

PAIR = distill.Pair("resnet8_tiny", "resnet8_tiny", pixels=8, batch=4, classes=4)


@pytest.fixture
def passes(monkeypatch):
    """Networks of one matrix, and {(which, how, rows, their views): how often traced}."""
    seen = Counter()

    def network(name, pair):
        which = "teacher" if name == "teacher" else "student"

        def said(params, rows, how):
            seen[which, how, len(rows.label), len(rows.views)] += 1
            pooled = rows.image.astype(jnp.float32).mean((1, 2)) / 255  # [R, 3]
            return Outputs(pooled @ params["kernel"], {}, pooled)

        def init(key):
            return {"kernel": jnp.zeros((3, pair.classes))}, {"mean": jnp.zeros(3)}

        def train(variables, rows, key):
            return said(variables[0], rows, "train"), variables[1]

        return Net(init, train, lambda variables, rows, domain=0:
                   said(variables[0], rows, "predict"))

    monkeypatch.setattr(distill, "network", network)
    still = augment.pipeline()  # crops, CutMix and RandAugment would compile for half a minute
    monkeypatch.setattr(distill, "WEAK", still)
    monkeypatch.setattr(distill, "MIXED", still)
    for name, rows in (("PLAIN", 1), ("KD", 1), ("FILTER", 4)):
        parts = getattr(distill, name)
        views = augment.make({"train": still}, rows={"train": rows})
        monkeypatch.setattr(distill, name, parts._replace(views=views, policies={}))
    return seen


B = PAIR.batch
PASSES = {  # what each step sees of its networks, by spec B8 and B9
    "kd_step": {("teacher", "predict", B, 1), ("student", "train", B, 1)},
    "cutmix_pick": {("teacher", "predict", 3 * B, 2), ("student", "train", 2 * B, 1),
                    ("student", "train", 2 * B, 2)},
    "teacher_filter": {("teacher", "predict", 4 * B, 1), ("student", "predict", 4 * B, 1),
                       ("student", "train", B, 1)},
}


@pytest.mark.parametrize("name", PASSES)
def test_a_step_has_the_passes_of_its_parts(name, passes, monkeypatch):
    wholes = []
    update = distill.update

    def noted(*arguments):
        call = update(*arguments)
        if not wholes:  # the whole is made first
            wholes.append(set(passes))
            passes.clear()
        return call

    monkeypatch.setattr(distill, "update", noted)
    whole, parts = getattr(distill, name)(PAIR)
    assert wholes[0] == set(passes) == PASSES[name]
    for metrics in (whole(), whole()):  # the second of what the first has left
        assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(metrics))
        assert metrics["learning_rate"] == 0
    for part in parts.values():
        assert jax.tree.leaves(part())


def test_a_row_is_the_whole_over_the_sum_of_its_parts(monkeypatch):
    monkeypatch.setattr(measure, "_alone", True)  # this process will do
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def lasting(seconds):
        def call():
            now[0] += seconds
        return call

    def made(pair):
        return lasting(0.3), {"one": lasting(0.1), "other": lasting(0.05)}

    row = distill.over(made, small=PAIR, cpu=2.1)("tiny")
    assert row["median"] == pytest.approx(2.0) and row["verdict"] == "met" and row["n"] == 20
    assert "batch B = 4, 8 pixels; ms: whole 300.0; one 100.0; other 50.0" in row["note"]
    assert distill.over(made, small=PAIR, cpu=1.9)("tiny")["verdict"] == "missed"


def test_what_is_not_installed_is_not_measured(monkeypatch):
    monkeypatch.setattr(measure, "_alone", True)

    def made(pair):
        raise ModuleNotFoundError("No module named 'timm.task'")

    row = distill.over(made, small=PAIR, at_least=1.0)("tiny")
    assert row["verdict"] == "not measured" and "timm.task" in row["note"]


def test_every_term_reads_such_networks():
    """Traced, not compiled: the taps and widths of a pair of ResNets are what the terms want."""
    terms = {**distill.KD.terms, **{name: term for name, (term, _) in distill.TERMS.items()}}
    batch = distill.noise(PAIR)

    def values():
        objective, state, frozen, knobs = distill.begun(
            PAIR, distill.KD._replace(terms=terms), batch)
        seen = replace(state, frozen=frozen)
        return objective(state.params, seen, batch, state.key, knobs)[0]

    assert jax.eval_shape(values) == dict.fromkeys(
        terms, jax.ShapeDtypeStruct((), jnp.float32))
    assert {f"{name} over KD" for name in distill.TERMS} <= set(distill.ROWS)


@pytest.mark.parity
def test_timms_step_trains_the_student_alone(monkeypatch):
    network, nets = torch_steps.network, {}

    def small(name, classes):
        nets[name] = network("test_resnet", classes)
        return nets[name]

    monkeypatch.setattr(torch_steps, "network", small)
    distill.timm_step(distill.Pair("its student", "its teacher", pixels=32, batch=4))()
    assert nets["its student"].bn1.num_batches_tracked == 1
    assert nets["its student"].fc.weight.grad is not None
    assert nets["its teacher"].bn1.num_batches_tracked == 0
    assert nets["its teacher"].fc.weight.grad is None

"""What a run says of its speed: that of training, whatever comes between."""

from helpers import BATCH, knobs, phase, recipe
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import schedule
from augjax.train import metrics, report, start

STEP_S, EVALUATION_S, EVERY = 0.5, 100.0, 4  # rows come every 4 steps, epochs have 6


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(report, "time", Clock())
    return report.time


def told(value):
    return {"bad_step": jnp.asarray(-1), "metrics": {"loss": jnp.asarray(value)}}


@pytest.mark.parametrize("behind", [0, EVERY], ids=["host_bound", "device_bound"])
def test_the_speed_is_that_of_training(tmp_path, monkeypatch, clock, behind):
    """A host that waits for its device reads a row's report when the next row is due, and at that
    moment the device has done the row's step; one that does not, reads it when all is done."""
    monkeypatch.setattr(report, "_is_ready", lambda told: not behind)
    made = recipe(phase(epochs=4), log_every=EVERY)
    reporter = report.Reporter(made, made.phases[0], tmp_path, 0)
    evaluated = 0
    for step in range(1, 25):
        clock.now = max(clock.now, STEP_S * (step - behind) + EVALUATION_S * evaluated)
        reporter.pend(step, told(1.0))
        if step % 6 == 0:
            clock.now = STEP_S * step + EVALUATION_S * evaluated  # drain waits for the device
            with monkeypatch.context() as patch:
                patch.setattr(report, "_is_ready", lambda told: True)
                reporter.drain()
            clock.now += EVALUATION_S
            reporter.evaluation(step, {"accuracy": 0.5})
            evaluated += 1
    reporter.flush()
    trained, judged = (
        [row for row in metrics.read(tmp_path) if row["kind"] == kind]
        for kind in ("train", "eval"))
    assert [row["step"] for row in trained] == [4, 8, 12, 16, 20, 24]
    assert [row["images_per_s"] for row in trained] == [BATCH / STEP_S] * 6
    assert sum(row["seconds"] for row in trained) == 24 * STEP_S
    assert [row["seconds"] for row in judged] == [EVALUATION_S] * 4


def test_a_row_has_the_knobs_that_its_last_update_saw(tmp_path):
    """Of those on a schedule; the second epoch's plan begins anew where the first one ended."""
    turned = knobs({"ce": schedule.cosine(1.0)}, magnitude=schedule.linear(24.0, 0.0), other=3.0,
                   table=lambda clock: np.ones((*np.shape(clock.step), 2)))
    made = recipe(phase(epochs=2, knobs=turned), log_every=5)
    reporter = report.Reporter(made, made.phases[0], tmp_path, 0)
    for step in range(1, 13):
        reporter.pend(step, told(1.0))
    reporter.drain()
    reporter.flush()
    rows = metrics.read(tmp_path)
    assert [row["step"] for row in rows] == [5, 10, 12]
    for row in rows:
        epoch, place = divmod(row["step"] - 1, 6)
        seen = start.plan(made.phases[0], made, epoch).knobs
        assert row["policies/train/magnitude"] == seen.policies["train"]["magnitude"][place]
        assert row["weights/ce"] == seen.weights["ce"][place]
        assert not {"policies/train/other", "policies/train/table"} & set(row)


def test_who_goes_on_is_told_from_where(tmp_path, capsys):
    made = recipe(phase(epochs=2))
    report.Reporter(made, made.phases[0], tmp_path, 0)
    assert not capsys.readouterr().err
    report.Reporter(made, made.phases[0], tmp_path, 5)
    assert capsys.readouterr().err == "only  goes on from step 5/12\n"

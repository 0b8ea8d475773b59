"""What a run says of its speed: that of training, whatever comes between."""

from helpers import BATCH, phase, recipe
import jax.numpy as jnp
import pytest

from augjax.train import metrics, report

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

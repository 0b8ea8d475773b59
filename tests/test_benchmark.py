"""What the benchmarks time really runs; the times themselves are nobody's test."""

import csv
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import augment
from augjax.augment.rows import ROW
from augjax.augment.select import darker_by_comparing
from augjax.models import MODELS
from augjax.models.depthwise import GROUPED, SHIFTED
from launch import benchmark
from launch.benchmarks import gpu, measure, models
from launch.benchmarks.train import Bench, quick_recipe


def test_the_loop_and_the_bare_step_run():
    bench = Bench(quick_recipe(), steps=2)
    bench.bare()
    bench.looped()
    assert int(bench.state.step) == 4


def test_a_verdict_needs_the_whole_interval():
    for values, verdict in (
            ([2.0] * 20, "met"), ([0.5] * 20, "missed"), ([0.5, 2.0] * 10, "undecided")):
        assert measure.row("x", values, "ratio", at_least=1.0)["verdict"] == verdict
    assert json.dumps(measure.unmeasured("x", "no such peer"))


def test_the_interval_of_a_median_comes_from_order_statistics():
    """For n = 20 the 95 % interval runs from the 6th to the 15th value (binomial table)."""
    assert measure.interval([float(x) for x in range(1, 21)]) == (6.0, 15.0)


class Inverting:
    """A policy that is quick to compile."""

    def draw(self, keys, image_shape):
        nothing = jnp.zeros((len(keys), 1), jnp.int32)
        return augment.Program(nothing, jnp.zeros((*nothing.shape, ROW), jnp.int32), ("invert",))


def test_a_train_step_runs_and_says_what_it_costs():
    step = models.Step("resnet8_tiny", 8, 4, Inverting())
    step(2)
    assert int(step.state[-1]) == 2
    assert step.flops > 0 and step.gigabytes > 0 and step.compile_s > 0
    facts = models.columns(step, 0.5)
    # the columns of timm's results/benchmark-train-*.csv
    assert list(facts)[:6] == ["model", "train_samples_per_sec", "train_step_time",
                               "train_batch_size", "train_img_size", "param_count"]
    assert facts["train_samples_per_sec"] == 8 and facts["train_step_time"] == 500


def test_a_models_row_has_its_columns_and_what_a_cpu_cannot_do_says_so():
    case = models.Case("resnet8_tiny", 224, (256,), (8, 4), "")
    row = models.speed(case)("tiny")
    assert row["unit"] == "images/s" and row["csv"]["train_batch_size"] == 4
    table = measure.csv_table([row, measure.unmeasured("x", "y")])
    assert [line["model"] for line in csv.DictReader(table.splitlines())] == ["resnet8_tiny"]
    large = models.speed(case._replace(small=None))("large")
    assert large["verdict"] == "not measured" and "no GPU" in large["note"]


def test_a_batch_that_memory_does_not_hold_is_followed_by_the_next(monkeypatch):
    monkeypatch.setattr(models, "on_cpu", lambda: False)
    case = models.Case("resnet8_tiny", 8, (8, 4), None, "")

    def work(batch):
        if batch == 8:
            raise RuntimeError("RESOURCE_EXHAUSTED: 80 GB")
        return batch

    assert models.first_that_fits(case, work) == 4
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        models.first_that_fits(case._replace(batches=(8,)), work)


def test_the_forms_of_a_depthwise_convolution_run():
    for form in (GROUPED, SHIFTED):
        for back in (False, True):
            models.layer(form, (16, 4, 3, 2), back)()


def test_the_rows_of_a_session_on_a_gpu():
    assert set(models.ROWS) <= set(gpu.ROWS)
    assert {case.model for case in models.CASES} <= set(MODELS)
    order = list(gpu.ROWS)
    assert order[0] == "copy of float32" and order[-1] in models.ROWS
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8))
    np.testing.assert_array_equal(gpu.darker_by_scattering(pixels), darker_by_comparing(pixels))


def test_rows_for_a_gpu_run_without_one(monkeypatch):
    monkeypatch.setattr(gpu, "COPIED", {True: 2**10})
    assert gpu.bandwidth("copy")["unit"] == "GB/s"
    assert gpu.histogram(2, 8)("histogram")["n"] >= 6
    broken = gpu.guarded(lambda name: {}["nothing"])("broken")
    assert broken["verdict"] == "not measured" and "KeyError" in broken["note"]
    assert gpu.over(None, 2, 8, needs="no_such_peer")("peer")["note"].endswith("not installed")


def test_a_second_call_goes_on_and_tries_again_what_failed(tmp_path, monkeypatch, capsys):
    calls = []

    def works(name):
        calls.append(name)
        return measure.row(name, [2.0] * 6, "images/s") | {"csv": {"model": name}}

    def fails(name):
        calls.append(name)
        return measure.unmeasured(name, "failed")

    suite = SimpleNamespace(ROWS={"one": works, "two": fails})
    monkeypatch.setattr(benchmark.importlib, "import_module", lambda name: suite)
    path = tmp_path / "rows.json"
    monkeypatch.setattr(benchmark, "JSON", SimpleNamespace(value=str(path)))
    monkeypatch.setattr(benchmark, "DEADLINE", SimpleNamespace(value=float("inf")))
    for _ in range(2):
        benchmark.main("models")
    assert calls == ["one", "two", "two"]
    assert [row["row"] for row in json.loads(path.read_text())["rows"]] == ["one", "two"]
    assert path.with_suffix(".csv").read_text() == "model\none\n"
    assert jax.default_backend() in capsys.readouterr().out

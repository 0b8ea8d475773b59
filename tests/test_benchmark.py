"""What the benchmarks time really runs; the times themselves are nobody's test."""

import json

from launch.benchmarks import measure
from launch.benchmarks.train import Bench, quick_recipe


def test_the_loop_and_the_bare_step_run():
    bench = Bench(quick_recipe(), steps=2)
    bench.bare()
    bench.looped()
    assert int(bench.state.step) == 4


def test_a_verdict_needs_the_whole_interval():
    for values, verdict in (([2.0] * 20, "met"), ([0.5] * 20, "missed"), ([0.5, 2.0] * 10, "undecided")):
        assert measure.row("x", values, "ratio", at_least=1.0)["verdict"] == verdict
    assert json.dumps(measure.unmeasured("x", "no such peer"))


def test_the_interval_of_a_median_comes_from_order_statistics():
    """For n = 20 the 95 % interval runs from the 6th to the 15th value (binomial table)."""
    assert measure.interval([float(x) for x in range(1, 21)]) == (6.0, 15.0)

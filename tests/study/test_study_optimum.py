"""The best magnitude of every sparsity: by held-out images alone, with its line."""

from dataclasses import replace
import json

import numpy as np
import pytest
from scipy import stats

from augjax import check, defaults, study
from augjax.study import plots
from augjax.train import folder
from study.small_study import planned, pretend, training

X, CONDITIONS = (0.0, 4.0, 8.0), (0.2, 0.6)
HELD = {  # held-out accuracy of seeds 0 and 1
    "a0": (60, 61), "a4": (66, 64), "a8": (61, 65), "a": (60, 62),
    "b0": (50, 50), "b4": (48, 50), "b8": (40, 41), "b": (50, 50),
}


def held_out(**changes):
    row = training()
    row.data.holdout = 10
    wanted = defaults.optimum("magnitude", X, "sparsity", CONDITIONS,
                              (("a0", "a4", "a8"), ("b0", "b4", "b8")), ("a", "b"))
    return planned(rows={name: row for name in HELD},
                   optima={"magnitudes": {**wanted.to_dict(), **changes}})


@pytest.fixture
def table(tmp_path):
    made = held_out()
    for row, accuracies in HELD.items():
        for seed, accuracy in enumerate(accuracies):
            if (row, seed) == ("b8", 1):
                continue  # not done yet
            place = pretend(tmp_path, made, f"{row}/{seed}", accuracy=(100 - accuracy) / 100)
            summary = json.loads((place / "summary.json").read_text())
            summary["phases"]["student"]["holdout_accuracy"] = accuracy / 100
            folder.write_json(place / "summary.json", summary)
    return made, study.gather(made, tmp_path), tmp_path


def test_held_out_images_choose_and_test_images_tell(table):
    first, second = table[1]["optima"]["magnitudes"]["at"]
    assert (first["best"], first["maximal"]) == (4.0, 8.0)
    assert first["holdout"]["mean"] == 65 and first["test"]["mean"] == 35  # the other way round
    assert first["best_of_seed"] == {"0": 4.0, "1": 8.0}
    assert (second["best"], second["maximal"], second["measured"]) == (0.0, 0.0, 3)
    assert second["best_of_seed"] == {"0": 0.0}  # the seed that every x has


def test_averaged_weights_count_where_the_study_says_so(table):
    _, found, workdir = table
    for path in workdir.glob("runs/*/*/summary.json"):
        summary = json.loads(path.read_text())
        summary["phases"]["student"] |= {"ema_accuracy": 0.5, "ema_holdout_accuracy": 0.25}
        folder.write_json(path, summary)
    averaged = study.gather(replace(held_out(), weights="ema"), workdir)
    first = averaged["optima"]["magnitudes"]["at"][0]
    assert first["holdout"]["mean"] == 25 and first["test"]["mean"] == 50
    assert averaged["rows"][0]["top1"]["mean"] == 50 != found["rows"][0]["top1"]["mean"]


def test_equals_go_to_the_lowest_and_nothing_measured_is_said():
    wanted = study.Optimum("m", (2.0, 1.0, 3.0), "s", (0.0,), (("x", "y", "z"),), ("none",))
    found = study.choose(wanted, lambda row: {0: 50.0, 1: 50.0}, lambda row: {0: 1.0})
    assert found["at"][0]["best"] == 1.0 and found["at"][0]["maximal"] == 3.0
    nothing = study.choose(wanted, lambda row: {}, lambda row: {})
    assert nothing["at"][0]["best"] is None and nothing["fit"] is None


def test_the_line_is_that_of_scipy():
    x = np.repeat([0.0, 0.2, 0.4, 0.6], 3)
    y = np.array([14, 13, 15, 12, 12, 10, 8, 9, 7, 4, 6, 3], float)
    found, known = study.line(list(zip(x, y))), stats.linregress(x, y)
    reach = stats.t.ppf(0.975, len(x) - 2)
    assert found["slope"] == pytest.approx(known.slope, abs=1e-5)
    assert found["intercept"] == pytest.approx(known.intercept, abs=1e-5)
    assert found["slope_interval"] == pytest.approx(
        (known.slope - reach * known.stderr, known.slope + reach * known.stderr), abs=1e-5)
    assert found["intercept_interval"][1] == pytest.approx(
        known.intercept + reach * known.intercept_stderr, abs=1e-5)
    assert study.line([(1.0, 2.0)] * 5) is None and study.line([(0.0, 1.0), (1.0, 2.0)]) is None


def test_text_and_plots_show_it(table):
    made, found, workdir = table
    text = study.markdown(found)
    assert "## magnitudes" in text and "| 0.2 | 3 of 3 | 4 | 65.00 ± 1.41 | 35.00 ± 1.41 |" in text
    assert "Best magnitude = " in text and "3 choices" in text
    names = [path.name for path in study.draw(made, found, workdir)]
    assert names[-2:] == ["magnitudes.png", "magnitudes_best.png"]
    axes = plots.plot_best(found["optima"]["magnitudes"]).axes[0]
    assert [0.2, 0.2, 0.6] in [list(line.get_xdata()) for line in axes.lines]


@pytest.mark.parametrize("changes, part", [
    ({"rows": (("a0", "a4"), ("b0", "b4"))}, "2 conditions of 3 rows"),
    ({"without": ("a",)}, "none or 2"),
    ({"without": ("a", "bb")}, "'b'"),
])
def test_a_grid_with_holes_is_refused(changes, part):
    with pytest.raises(check.ConfigError, match=part):
        held_out(**changes)


def test_nothing_is_chosen_on_test_images():
    wanted = defaults.optimum("magnitude", (1.0,), "sparsity", (0.0,), (("plain",),))
    with pytest.raises(check.ConfigError, match="hold out training images"):
        planned(rows={"plain": training()}, optima={"best": wanted})

"""Rows that are searches, rows that replay what they found, and optima found coarse to fine."""

import json

from ml_collections import ConfigDict
import pytest
from small_study import phases_of, planned, pretend, training

from augjax import check, defaults, study
from launch import coarse
from launch import study as launch_study


def searching() -> ConfigDict:
    """Two members, two epochs of six steps, one decision."""
    student = training(views={"train": defaults.view("crop", defaults.searched(), pad=1)},
                       epochs=2.0).student
    return defaults.config(
        {"student": student}, data={"name": "digits", "limit": 96, "holdout": 60, "image_size": 8},
        search=defaults.search(members=2, interval_epochs=1))


def replaying(schedule: str = "row:found") -> ConfigDict:
    policy = defaults.policy("replay", fill="mean", schedule=schedule)
    return training(views={"train": defaults.view("crop", policy, pad=1)})


def test_a_row_is_searched_and_replayed(tmp_path):
    """From nothing to the number: the row that replays waits for the one that searches."""
    made = planned(rows={"kept": replaying(), "found": searching()}, seeds=(0,))
    assert [str(run) for run in made.runs] == ["found/0", "kept/0"]
    datasets = launch_study.load_data(made)
    launch_study.check_rows(made, datasets)
    study.train_here(made, tmp_path, launch_study.builder(datasets), members=4)
    assert study.exit_code(made, tmp_path) == 0
    schedule = json.loads((tmp_path / "runs/found/0/schedule.json").read_text())
    assert schedule["epochs"] == 2
    rows = study.gather(made, tmp_path)["rows"]
    assert [row["n"] for row in rows] == [1, 1]


def test_a_wrong_name_in_a_search_is_found_before_any_run():
    block = searching()
    with block.unlocked():
        block.student.views.train.policy.kind = "pbb"
    made = study.parse(json.loads(defaults.study(
        "A study", {"found": block}, seeds=(0,), scale="tiny").to_json()), phases_of)
    with pytest.raises(check.ConfigError, match="pbb"):
        launch_study.check_rows(made, launch_study.load_data(made))


# --- coarse to fine ------------------------------------------------------------------------------

CURVES = {0.0: lambda x: 60 - abs(x - 14), 0.6: lambda x: 50 - abs(x - 3)}  # percent, held out


def grid(places=31):
    """Two sparsities of `places` magnitudes each, two seeds."""
    def held():
        row = training()
        with row.unlocked():
            row.data.holdout = 60
        return row

    names = {p: tuple(f"p{100 * p:.0f}_m{x}" for x in range(places)) for p in CURVES}
    rows = {name: held() for along in names.values() for name in along}
    rows |= {f"p{100 * p:.0f}_none": held() for p in CURVES}
    return planned(rows=rows, optima={"magnitudes": defaults.optimum(
        "magnitude", tuple(map(float, range(places))), "sparsity", tuple(CURVES),
        tuple(names.values()), tuple(f"p{100 * p:.0f}_none" for p in CURVES))})


def do(made, workdir, row):
    sparsity, _, magnitude = row.removeprefix("p").partition("_")
    held = 40 if magnitude == "none" else CURVES[int(sparsity) / 100](int(magnitude[1:]))
    for seed in (0, 1):
        place = pretend(workdir, made, f"{row}/{seed}", held / 100)
        summary = json.loads((place / "summary.json").read_text())
        summary["phases"]["student"]["holdout_accuracy"] = held / 100
        (place / "summary.json").write_text(json.dumps(summary))


def test_coarse_to_fine_finds_the_grids_best_in_a_third_of_its_runs(tmp_path):
    made, done = grid(), set()
    while wanted := coarse.rows_wanted(made, tmp_path):
        assert not wanted & done  # never one twice
        for row in wanted:
            do(made, tmp_path, row)
        done |= wanted
    found = study.gather(made, tmp_path)["optima"]["magnitudes"]["at"]
    assert [choice["best"] for choice in found] == [14.0, 3.0]
    assert {"p0_none", "p60_none"} <= done and len(done) <= 2 + 2 * 11
    first, second = coarse.told(made, tmp_path).splitlines()
    assert first.startswith("magnitudes: sparsity 0: ") and "of 62 runs" in first
    assert "not known" in second


def test_a_study_without_optima_is_refused():
    with pytest.raises(check.ConfigError, match="--coarse_to_fine: expected a study with `optima`"):
        coarse.require_optima(planned())
    coarse.require_optima(grid(places=5))


def test_what_the_search_loses_is_told_of_a_whole_grid(tmp_path):
    made = grid(places=7)
    for row in made.rows:
        do(made, tmp_path, row)
    assert coarse.rows_wanted(made, tmp_path) == set()
    assert "loses 0.00 points" in coarse.told(made, tmp_path).splitlines()[1]


def test_a_failed_run_is_the_worst_and_not_waited_for(tmp_path):
    made = grid(places=5)
    for row in made.rows:
        do(made, tmp_path, row)
    (tmp_path / "runs/p60_m3/0/summary.json").unlink()
    study.folders.note_failure(tmp_path, made.run("p60_m3/0"), 5, "NaN")
    assert coarse.rows_wanted(made, tmp_path) == set()

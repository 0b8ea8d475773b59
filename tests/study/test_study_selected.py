"""Rows that count by the branch which held-out images selected."""

import json

import pytest
from small_study import pretend, planned, training

from augjax import check, study
from augjax.train import folder

BRANCHES = [(0.60, 0.3, 0.2), (0.50, 0.9, 0.8)]  # accuracy, held out, weight


def row():
    config = training()
    config.data.holdout = 10
    return config


def made(**changes):
    return planned(rows={"a2": row(), "plain": row()}, weights="selected", **changes)


@pytest.fixture
def table(tmp_path):
    found = made()
    for run, accuracy in (("a2/0", 0.6), ("a2/1", 0.6), ("plain/0", 0.4), ("plain/1", 0.45)):
        place = pretend(tmp_path, found, run, accuracy)
        if run.startswith("a2"):
            first = run == "a2/0"
            summary = json.loads((place / "summary.json").read_text())
            summary["phases"]["student"] |= {
                "branches": [{"accuracy": a, "holdout_accuracy": h, "weight": w}
                             for a, h, w in BRANCHES],
                "ensemble_accuracy": 0.7, "selected_branch": 1 if first else 0,
                "selected_accuracy": 0.5 if first else 0.6}
            folder.write_json(place / "summary.json", summary)
    return study.gather(found, tmp_path)


def test_the_selected_branch_counts_and_a_row_without_branches_by_its_only_one(table):
    a2, plain = table["rows"]
    assert a2["top1_of_seed"] == {"0": 50.0, "1": 60.0} and a2["top1"]["mean"] == 55
    assert plain["top1_of_seed"] == {"0": 40.0, "1": 45.0} and plain["branches"] is None
    branches = a2["branches"]
    assert [found["mean"] for found in branches["accuracy"]] == [60, 50]
    assert branches["weight"] == [0.2, 0.8] and branches["ensemble"]["mean"] == 70
    assert branches["selected_of_seed"] == {"0": 1, "1": 0}


def test_the_text_lists_branches_and_says_who_chose(table):
    lines = study.markdown(table).splitlines()
    for line in ("## Branches", "| a2 | 0 | 60.00 ± 0.00 | 0.200 | 1 |",
                 "| a2 | 1 | 50.00 ± 0.00 | 0.800 | 0 |", "| a2 | ensemble | 70.00 ± 0.00 |  |  |"):
        assert line in lines
    assert "highest accuracy on held-out training images" in "\n".join(lines)


def test_nothing_is_selected_on_test_images():
    with pytest.raises(check.ConfigError, match="data.holdout of row 'plain'.*selected"):
        planned(rows={"a2": row(), "plain": training()}, weights="selected")

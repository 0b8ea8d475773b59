"""What the rows of the suite `search` time: that it is what they say."""

import json

import pytest

from launch.benchmarks import measure, models
from launch.benchmarks import search as suite


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Rows are measured in this process."""
    monkeypatch.setattr(measure, "_alone", True)


def test_a_step_of_all_branches_is_beside_a_step_under_each(monkeypatch):
    now, seen = [0.0], []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    class Lasting:
        """A second for each view."""

        def __init__(self, built, steps):
            self.phase = built.phases[0]
            seen.append((len(self.phase.objective.terms), len(self.phase.knobs.policies), steps))

        def bare(self):
            now[0] += len(self.phase.knobs.policies)

    monkeypatch.setattr(suite, "Bench", Lasting)
    row = suite.ROWS["A2 of 4 branches over 4 steps"]("row")
    assert seen == [(2, 4, 1)] + [(1, 1, 1)] * 4
    assert row["median"] == 1 and row["verdict"] == "met"
    assert "joint 4000 ms; plain 4000 ms" in row["note"]


def test_a_wide_step_has_the_rows_of_all_branches(monkeypatch):
    class Sized:
        def __init__(self, built, steps):
            self.bare = lambda: built.phases[0].batch_size

    monkeypatch.setattr(suite, "Bench", Sized)
    made = suite.steps("resnet8_tiny", 8, {"joint", "plain", "wide"})
    assert {name: call() for name, call in made.items()} == {
        "joint": 8, "plain": [8] * 4, "wide": 32}


@pytest.fixture
def logged(monkeypatch):
    """Searches that only write a log: ten decisions, a second later each time."""
    searched = []

    def run(made, workdir):
        searched.append(made)
        rows = [{"kind": "train", "seconds": 10.0 + n, "bookkeeping_s": 0.1} for n in range(10)]
        with open(f"{workdir}/metrics.jsonl", "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    monkeypatch.setattr(suite.search, "run", run)
    return searched


def test_decisions_are_told_of_by_the_log(logged):
    row = suite.bookkeeping("row")
    made, = logged
    assert made.members == 16 and made.interval_epochs == 1 and len(made.recipe.data.train) == 412
    assert row["n"] == 8 and row["median"] == pytest.approx(0.1 / 14.5, rel=0.01)
    assert row["verdict"] == "met"


def test_a_whole_search_wants_an_accelerator(logged, monkeypatch):
    assert suite.whole_search()("row")["verdict"] == "not measured" and not logged
    monkeypatch.setattr(models, "on_cpu", lambda: False)
    monkeypatch.setattr(models, "load", lambda: "")
    row, (made,) = suite.whole_search()("row"), logged
    phase = made.recipe.phases[0]
    assert (made.members, made.interval_epochs, phase.epochs, phase.batch_size) == (16, 3, 21, 128)
    assert (len(made.recipe.data.train), len(made.recipe.data.holdout)) == (4000, 36000)
    assert row["median"] == pytest.approx(15 * 200 / 3 / 60) and row["unit"] == "minutes"

"""What a study may say: rows, seeds, sources between rows, and every name checked before work."""

import json

from ml_collections import ConfigDict
import pytest
from small_study import config, planned, taught, training

from augjax import check, data, defaults, recipe, study


def names(runs):
    return [str(run) for run in runs]




def test_runs_come_in_order_of_need_and_seed_by_seed():
    """A study cut short has one seed of every row, not every seed of one row."""
    assert names(planned().runs) == ["plain/0", "kd/0", "plain/1", "kd/1"]
    chain = planned(rows={"c": taught("row:b"), "b": taught("row:a"), "a": training()}, seeds=(4,))
    assert names(chain.runs) == ["a/4", "b/4", "c/4"]
    assert [chain.level(run) for run in chain.runs] == [0, 1, 2]


def test_a_row_takes_the_network_of_its_own_seed():
    made = planned()
    assert names(made.needed(made.run("kd/1"))) == ["plain/1"]
    config = study.config_of(made, made.run("kd/1"), "/w")
    assert config["seed"] == 1
    assert config["student"]["teacher"] == "run:/w/runs/plain/1#student"
    assert config["student"]["init"] == "scratch"


def test_one_teacher_for_all_seeds():
    made = planned(seeds_of={"plain": (7,)})
    assert names(made.runs) == ["plain/7", "kd/0", "kd/1"]
    assert {name for run in made.runs[1:] for name in names(made.needed(run))} == {"plain/7"}


def test_a_source_may_name_seed_phase_and_step():
    made = planned(rows={"kd": taught("row:plain/0#student@3"), "plain": training()})
    config = study.config_of(made, made.run("kd/1"), "/w")
    assert config["student"]["teacher"] == "run:/w/runs/plain/0#student@3"


def test_sources_are_found_wherever_a_config_has_them():
    """In lists too, as a phase with several teachers would have them."""
    block = json.loads(config().to_json())
    block["rows"]["kd"]["student"]["more"] = {"teachers": ["row:plain", "none", ["row:plain/1"]]}
    made = study.parse(block, lambda row: ("student",))
    assert names(made.needed(made.run("kd/0"))) == ["plain/0", "plain/1"]
    written = study.config_of(made, made.run("kd/0"), "/w")["student"]["more"]["teachers"]
    assert written == ["run:/w/runs/plain/0#student", "none", ["run:/w/runs/plain/1#student"]]


def test_what_a_run_needs_joins_its_config_so_that_one_build_checks_it():
    """Three rows in a chain, the middle one a ladder whose phases refer to each other."""
    ladder = defaults.config(
        phases={
            "student": defaults.phase(teacher="row:a", transform={"mask": defaults.mask(0.0)},
                                      terms={"kd": defaults.term("hinton")},
                                      repeat={"sparsity": (0.2, 0.4)}),
            "more": defaults.phase(init="phase:student", transform={"mask": defaults.mask(0.4)})},
        data={"name": "digits"})
    made = planned(rows={"c": taught("row:b#student-2"), "b": ladder, "a": training()},
                   seeds=(0,), report_of={"b": "more"})
    built = recipe.build(ConfigDict(made.joined(made.run("c/0"))), data.described("digits", 8))
    found = {phase.name: phase for phase in built.phases}
    assert list(found) == ["a/0/student", "b/0/student-1", "b/0/student-2", "b/0/more", "student"]
    assert str(found["b/0/student-1"].frozen["teacher"]) == "phase:a/0/student"
    assert str(found["b/0/student-2"].init["student"]) == "phase:b/0/student-1"
    assert str(found["b/0/more"].init["student"]) == "phase:b/0/student-2"
    assert str(found["student"].frozen["teacher"]) == "phase:b/0/student-2"


def test_init_is_a_source_too():
    made = planned(rows={"on": training(init="row:plain"), "plain": training()})
    assert names(made.needed(made.run("on/0"))) == ["plain/0"]


def test_flags_reach_into_one_row_and_no_other():
    """Rows built from one config in Python are copies."""
    row = training()
    made = config(rows={"a": row, "b": row})
    made.rows.a.student.epochs = 9.0
    assert (made.rows.b.student.epochs, row.student.epochs) == (1.0, 1.0)


def test_a_grid_is_a_comprehension():
    grid = {f"r{number}": defaults.varied(training(), {"student.optimizer.learning_rate": rate})
            for number, rate in enumerate((0.1, 0.2))}
    assert [row.student.optimizer.learning_rate for row in grid.values()] == [0.1, 0.2]
    with pytest.raises(KeyError):
        defaults.varied(training(), {"student.optimizer.learning_rat": 0.1})


def test_a_ladder_counts_by_its_rung():
    row = training(transform={"mask": defaults.mask(0.0)}, repeat={"sparsity": (0.2, 0.4)})
    made = planned(rows={"a": row}, report="student-2")
    assert made.rows["a"].phases == ("student-1", "student-2")


@pytest.mark.parametrize("changes, words", [
    ({"rows": {"kd": taught("row:plian"), "plain": training()}}, "Did you mean 'plain'"),
    ({"rows": {"kd": taught("row:plain#studnet"), "plain": training()}}, "'student'"),
    ({"rows": {"kd": taught("row:plain/5"), "plain": training()}}, "5"),
    ({"rows": {"kd": taught("row:plain:3"), "plain": training()}}, "row:NAME[/SEED]"),
    ({"rows": {"a": taught("row:b"), "b": taught("row:a")}}, "a/0 needs b/0 needs a/0"),
    ({"rows": {"a": taught("row:a")}}, "a/0 needs a/0"),
    ({"rows": {"a/b": training()}}, "a/b"),
    ({"rows": {"a": defaults.model("resnet8")}}, "defaults.config"),
    ({"seeds": (0, 0)}, "different whole numbers"),
    ({"seeds": ()}, "different whole numbers"),
    ({"seeds_of": {"plian": (0,)}}, "Did you mean 'plain'"),
    ({"seeds_of": {"plain": (0, 2)}}, "expected a seed of row 'plain', (0, 2), got 1"),
    ({"report": "studnet"}, "Did you mean 'student'"),
    ({"report_of": {"kd": "teacher"}}, "'teacher'"),
    ({"scale": "smal"}, "Did you mean 'small'"),
    ({"published": {"kt": defaults.published(70.0, "x")}}, "kd"),
    ({"published": {"kd": {"top1": 0.7066, "source": "x"}}}, "percent"),
    ({"published": {"kd": {"top1": 70.0}}}, "source"),
    ({"published": {"kd": defaults.published(70.0, "x", top_5=1)}}, "top5"),
    ({"comparisons": (defaults.comparison("kd > plian", "x"),)}, "plain"),
    ({"comparisons": (defaults.comparison("kd beats plain", "x"),)}, "ROW > ROW"),
    ({"figures": {"f": defaults.figure("x", (1.0, 2.0), {"l": ("kd",)})}}, "a row for each of 2"),
    ({"figures": {"f": defaults.figure("x", (1.0,), {"l": ("k",)})}}, "kd"),
    ({"curves": {"c": defaults.curve("loss", ("k",))}}, "kd"),
    ({"devices_per_run": 0}, "1 or more"),
    ({"sedes_of": {}}, "Did you mean 'seeds_of'"),
])
def test_what_makes_no_sense_is_refused_with_the_nearest_name(changes, words):
    assert words in refusal_of(changes)


def refusal_of(changes):
    with pytest.raises(check.ConfigError) as caught:
        planned(**changes)
    return str(caught.value)


def test_every_field_of_the_builder_is_known_and_every_known_field_is_built():
    assert set(config()) == set(study.plan.FIELDS)


def test_a_study_of_an_older_augjax_is_refused_with_what_it_lacks():
    older = json.loads(config().to_json())
    del older["curves"]
    with pytest.raises(check.ConfigError, match="none called curves.*older augjax"):
        study.parse(older, lambda row: tuple(row["phases"]))

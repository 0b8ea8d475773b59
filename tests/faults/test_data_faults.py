"""A run's data: other ones, moved ones, partly bad ones."""

from dataclasses import replace
import json

from data.test_fed_images import CLASSES, small_images, write_folder
import jax
from jax.experimental import multihost_utils
import numpy as np
import pytest
from search import test_search_run
from study.small_study import planned, pretend, training
from train.helpers import (
    CLASSES as FOUR, phase, pictures, recipe, rows, SHAPE,
)

from augjax import check, data, recipe as recipes, search, study, train
from augjax.train import folder, report

ONE = jax.devices()[:1]
MADE = recipe(phase(structure="data faults"))


# --- other data ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("begun")
    train.run(MADE, workdir, devices=ONE)
    return workdir


def relabelled(dataset, split):
    """The same images, two of whose labels have changed places."""
    source = getattr(dataset, split)
    labels = np.concatenate([source.labels[1::-1], source.labels[2:]])
    return replace(dataset, **{split: replace(source, labels=labels)})


OTHER = {
    "more images": (pictures(144), "images.train: 96 there, 144 now"),
    "images held out": (pictures(holdout_images=20), "images.holdout: None there, 20 now"),
    "another class": (replace(pictures(), class_names=("a", "b", "x", "d")),
                      "class_names.2: 'c' there, 'x' now"),
    "labels to learn from": (relabelled(pictures(), "train"), "labels_sha256.train: '.* there"),
    "labels to test by": (relabelled(pictures(), "test"), "labels_sha256.test: '.* there"),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_data_end_a_start_with_3_and_what_differs(begun, name):
    other, told = OTHER[name]
    before = {path: path.read_bytes() for path in begun.glob("*.json*")}
    with pytest.raises(check.DataError, match=told) as caught:
        train.run(replace(MADE, data=other), begun, devices=ONE)
    assert caught.value.exit_code == 3 and "choose another --workdir" in str(caught.value)
    assert "classes:" not in str(caught.value)  # what is equal is left out
    assert {path: path.read_bytes() for path in begun.glob("*.json*")} == before


def test_of_a_thousand_other_classes_a_few_are_told(begun, tmp_path):
    facts = {"class_names": [str(k) for k in range(1000)], "images": {}}
    begin(tmp_path)
    folder.remember_data(tmp_path, facts)
    with pytest.raises(check.DataError, match="class_names.0: '0' there, 'n0' now.* and 992 more"):
        folder.remember_data(tmp_path, {
            **facts, "class_names": [f"n{k}" for k in range(1000)]})


def test_equal_data_go_on_and_what_older_versions_kept_is_enough(begun, tmp_path):
    path = begun / "data.json"
    whole = path.read_text()
    train.run(MADE, begun, devices=ONE)
    assert path.read_text() == whole
    facts = json.loads(whole)
    del facts["labels_sha256"]
    path.write_text(json.dumps(facts))
    try:
        train.run(MADE, begun, devices=ONE)
        assert json.loads(path.read_text()) == facts
        with pytest.raises(check.DataError, match="images.train: 96 there, 144 now"):
            train.run(replace(MADE, data=pictures(144)), begun, devices=ONE)
    finally:
        path.write_text(whole)


# --- data that moved -----------------------------------------------------------------------------


def processes(monkeypatch, first, own, others=0):
    """`own` is what this process has, `first` the first one; in another, `others` fields differ."""
    sent = iter([np.array(len(json.dumps(first))),
                 np.frombuffer(json.dumps(first).encode(), np.uint8)])
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda mine: next(sent))
    monkeypatch.setattr(multihost_utils, "process_allgather",
                        lambda count: np.array([0, int(count), others]))
    folder.require_agreed(own["config"], own["data"])


def test_processes_with_other_configs_or_data_do_not_begin(monkeypatch):
    """The one that differs says in what, the others which it is; where data lie is its own."""
    facts = {"class_names": ["a", "b"], "labels_sha256": {"train": "12"}}
    one = {"config": config() | {"seed": 0}, "data": facts}
    numbered = one | {"data": facts | {"class_names": {"0": "a", "1": "b"}}}
    processes(monkeypatch, numbered, one)
    processes(monkeypatch, numbered, one | {"config": config(dir="/mine", workers=3) | {"seed": 0}})
    for other, told in (
            ({"config": config() | {"seed": 10}}, "config.seed: 0 in process 0, 10 here"),
            ({"data": facts | {"class_names": ["a", "c", "d"]}}, "data.class_names.1: 'b' in pro"),
            ({"data": facts | {"labels_sha256": {"train": "13"}}}, "labels_sha256.train")):
        with pytest.raises(check.ConfigError, match=told):
            processes(monkeypatch, numbered, one | other)
    with pytest.raises(check.ConfigError, match="others in process 2, which says what"):
        processes(monkeypatch, numbered, one, others=1)


def config(**fields):
    return {"data": {"name": "flowers", "dir": "/old", "workers": 0, "limit": 0} | fields}


def begin(workdir):
    """What a save leaves."""
    (workdir / "checkpoints/student/3").mkdir(parents=True)
    (workdir / "checkpoints/student/3/array").touch()


def test_where_data_lie_and_who_decodes_them_may_change(tmp_path):
    begin(tmp_path)
    folder.remember(tmp_path, config())
    folder.remember(tmp_path, config(dir="/new", workers=4))
    assert json.loads((tmp_path / "config.json").read_text()) == config()
    for other in ({"limit": 9}, {"name": "birds"}, {"directory": "/new"}, {"dir_of": "x"}):
        with pytest.raises(check.ConfigError, match=f"data.{next(iter(other))}: "):
            folder.remember(tmp_path, config(**other))


def test_a_start_that_was_refused_holds_nobody_to_its_config(tmp_path):
    folder.remember(tmp_path, config(limit=9))
    folder.remember(tmp_path, config(limit=8))
    (tmp_path / "metrics.jsonl").write_text("{}")  # of steps that no save has
    (tmp_path / "checkpoints/student/frozen").mkdir(parents=True)
    (tmp_path / "checkpoints/student/frozen/array").touch()
    folder.remember(tmp_path, config(limit=8))
    begin(tmp_path)
    with pytest.raises(check.ConfigError, match="data.limit: 8 there, 7 now"):
        folder.remember(tmp_path, config(limit=7))


def test_and_in_a_study_too(tmp_path):
    made, moved = planned(rows={"plain": training()}, seeds=(0,)), training()
    pretend(tmp_path, made, "plain/0", 0.5)
    moved.data.dir, moved.data.workers = "/new", 2
    study.check_folders(planned(rows={"plain": moved}, seeds=(0,)), tmp_path)


def test_a_search_and_members_of_a_population_are_told_too(tmp_path):
    of_search = recipes.build_search(test_search_run.config())
    folder.write_json(tmp_path / "data.json", {"images": {"train": 7}})
    begin(tmp_path)
    with pytest.raises(check.DataError, match="images.train: 7 there, 96 now"):
        search.run(of_search, tmp_path, devices=ONE)
    (tmp_path / "config.json").unlink()
    failed = train.run_together([train.Member(MADE, tmp_path)], "looped", devices=ONE)
    assert isinstance(failed[0], check.DataError)


# --- bad images ----------------------------------------------------------------------------------


def test_rows_count_the_images_that_could_not_be_read(tmp_path, capsys):
    """One of twenty, which every epoch of two steps meets once, and one of eight test images, which
    counts for nothing."""
    sound = small_images(20)
    spoilt = [sound[0]._replace(encoded=b"none"), *sound[1:]]
    write_folder(tmp_path / "sets", "birds", {"train": spoilt, "test": spoilt[:8]},
                 CLASSES[:FOUR])
    birds = data.load("birds", tmp_path / "sets", image_size=SHAPE[0])
    made = recipe(phase(batch_size=10, epochs=3), data=birds, resident=False, log_every=1)
    train.run(made, tmp_path / "run", devices=ONE)
    counts = [row.get("data_bad", 0) for row in rows(tmp_path / "run", "train")]
    assert [sum(counts[epoch : epoch + 2]) for epoch in (0, 2, 4)] == [1, 1, 1]
    judged = rows(tmp_path / "run", "eval")
    assert len(judged) == 3 and all(row["data_bad"] == 1 for row in judged)
    for row in judged:
        assert row["accuracy"] * 7 == pytest.approx(round(row["accuracy"] * 7), abs=1e-9)
    assert capsys.readouterr().err.count("birds train record 0 (file name") == 3


def reporter(monkeypatch, workdir, process, others=0):
    """That of one process of three, of which `others` tell of so many bad images at a drain."""
    made, told = recipe(log_every=2), []
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda own: (
        told.append(int(own)), np.array([own, others, 0]))[1])
    return report.Reporter(made, made.phases[0], workdir, 0), told


def trained(made, steps):
    for step in steps:
        made.pend(step, {"bad_step": -1, "metrics": {"loss": 1.0}})


def test_the_first_process_counts_those_of_all_at_each_save_or_evaluation(
        tmp_path, monkeypatch, capsys):
    made, _ = reporter(monkeypatch, tmp_path, 0, others=4)
    made.bad_image("birds train record 4 is none")
    assert "process 0: birds train record 4 is none" in capsys.readouterr().err
    trained(made, [1, 2])  # a row with the one, which the drain writes with those of the others
    made.drain()
    trained(made, [3])
    made.drain()  # no row waits: the next has them
    trained(made, [4, 5])
    made.drain()
    assert [(row["step"], row["data_bad"]) for row in rows(tmp_path)] == [(2, 5), (4, 8)]


def test_other_processes_name_their_bad_images_and_tell_of_them(tmp_path, monkeypatch, capsys):
    made, told = reporter(monkeypatch, tmp_path, 2)
    made.bad_image("birds train record 5 is none")
    trained(made, [1, 2])
    made.bad_image("birds train record 6 is none")
    trained(made, [3, 4])
    made.drain()
    made.drain()
    assert told == [2, 0] and not list(tmp_path.iterdir())
    assert capsys.readouterr().err.splitlines() == [
        f"augjax: process 2: birds train record {n} is none" for n in (5, 6)]

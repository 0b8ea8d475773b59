"""Each phase compiles its update once; turning a knob compiles nothing; nor does going on."""

from collections import Counter
import contextlib
from pathlib import Path

import jax
import numpy as np
import pytest

from augjax import augment, check, losses, schedule, train
from augjax.train import metrics, stop
from augjax.types import Knobs
from train.helpers import fingerprint, noisy, objective, phase, recipe, rows, three_phases

EVENT = "/jax/core/compile/backend_compile_duration"
PROGRAMS = ("jit(step)", "jit(evaluate)")


@contextlib.contextmanager
def compilations():
    """Names of the programs compiled (or fetched from the disk's cache) while the block runs."""
    names = []

    def listen(event, seconds, **facts):
        if event == EVENT:
            names.append(facts["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def counted(names) -> dict[str, int]:
    """How often the two programs of a phase were compiled."""
    return {name: Counter(names)[name] for name in PROGRAMS}


def noted(workdir: Path) -> list[tuple[str, str]]:
    """The "compiled" lines of events.jsonl."""
    return [(event["phase"], event["what"]) for event in metrics.read_events(workdir)
            if event["event"] == "compiled"]


def train_on_one(made, workdir):
    return train.run(made, workdir, devices=jax.devices()[:1])


PHASE = ("start", "step", "evaluate")  # the programs of a phase
ONCE = [(phase, what) for phase in ("teacher", "student") for what in PHASE]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """(run folder, what was compiled) of the first run with this structure in this process."""
    workdir = tmp_path_factory.mktemp("shared")
    with compilations() as names:
        train_on_one(three_phases(structure="shared"), workdir)
    return workdir, names


def test_phases_of_equal_structure_share_one_compilation(shared):
    workdir, names = shared
    assert counted(names) == {"jit(step)": 2, "jit(evaluate)": 2}  # "pruned" takes the student's
    assert noted(workdir) == ONCE


def test_phases_without_a_structure_compile_their_own(tmp_path):
    with compilations() as names:
        train_on_one(three_phases(structure=None), tmp_path)
    assert counted(names) == {"jit(step)": 3, "jit(evaluate)": 3}
    assert noted(tmp_path) == [*ONCE, *(("pruned", what) for what in PHASE)]


def test_nothing_compiles_between_the_first_and_the_last_step(tmp_path, monkeypatch):
    """Saves, logs, schedules, new epochs and evaluations included."""
    inside, note = [], metrics.note
    with compilations() as names:
        def marked(workdir, event, **fields):
            note(workdir, event, **fields)
            if event == "phase":
                names.clear()
            if event == "phase done":
                inside.extend(names)

        monkeypatch.setattr(metrics, "note", marked)
        train_on_one(three_phases(structure=None), tmp_path)
    assert set(inside) <= {"jit(nonzero)"}  # counts the weights when all is done


@pytest.mark.parametrize("turned", [{"magnitude": 3.0}, {"kd": 0.25}, {"rate": 0.01}, {"seed": 5}],
                         ids=lambda turned: next(iter(turned)))
def test_turning_a_knob_compiles_nothing_and_changes_the_run(shared, tmp_path, turned):
    with compilations() as names:
        train_on_one(three_phases(structure="shared", **turned), tmp_path)
    assert counted(names) == {"jit(step)": 0, "jit(evaluate)": 0}
    assert noted(tmp_path) == []
    before, after = (rows(workdir, "train")[-1]["loss"] for workdir in (shared[0], tmp_path))
    assert before != after


def test_one_program_serves_numbers_arrays_and_schedules(tmp_path):
    """A knob may be a float, a NumPy scalar or any schedule: the compiled update sees a table."""
    def made(magnitude, weight, rate):
        knobs = Knobs({"train": {"magnitude": magnitude}}, {"ce": weight}, rate)
        return recipe(phase(made=objective(views=noisy), knobs=knobs, structure="numbers"))

    kinds = [(8.0, 1.0, 0.1), (np.float32(8), np.float32(1), np.float32(0.1)),
             (schedule.constant(8), schedule.linear(1, 1), schedule.piecewise(0.1, {})),
             (schedule.linear(8, 0), schedule.cosine(1.0), schedule.table({0: 0.1, 1: 0.2}))]
    logs = []
    for number, kind in enumerate(kinds):
        with compilations() as names:
            train_on_one(made(*kind), tmp_path / str(number))
        assert counted(names)["jit(step)"] == (number == 0)
        logs.append([{name: value for name, value in row.items() if "/" not in name}
                     for row in rows(tmp_path / str(number))])  # knobs on a schedule are told
    assert logs[0] == logs[1] == logs[2] != logs[3]


def replayed(probabilities, levels=(9.0, 0.0, 4.0, 6.0)):
    """A run of four epochs in which every epoch has its own segment of a PBA schedule.

    A term of weight 0 reports the mean pixel: equalized and inverted images differ in it.
    """
    ops = ("invert", "solarize")
    segments = [{"epochs": 1, "probabilities": [chance] * 4, "levels": [level] * 4}
                for chance, level in zip(probabilities, levels, strict=True)]
    policy = augment.replay(
        {"version": 1, "map": "autoaugment", "ops": list(ops), "epochs": 4, "segments": segments},
        epochs=4, counts=(0.0, 1.0))
    seen = objective({"ce": losses.cross_entropy(), "pixels": fingerprint()}, views=augment.make(
        {"train": augment.pipeline(augment.apply_policy)}))
    turned = Knobs({"train": policy}, {"ce": 1.0, "pixels": 0.0}, 0.05)
    return recipe(phase(made=seen, epochs=4, knobs=turned, structure="replayed"))


def test_a_replayed_schedule_compiles_once_over_all_its_epochs(tmp_path):
    """Its segments, and those of another schedule, are numbers of one program; and they act."""
    chances = [(1.0, 0.0, 1.0, 0.5), (0.0, 0.0, 1.0, 0.5)]
    pixels = []
    for number, probabilities in enumerate(chances):
        with compilations() as names:
            train_on_one(replayed(probabilities), tmp_path / str(number))
        assert counted(names) == dict.fromkeys(PROGRAMS, int(number == 0))
        pixels.append([row["pixels"] for row in rows(tmp_path / str(number), "train")])
    first, second = (np.reshape(values, (4, -1)) for values in pixels)  # by epoch
    assert (first[0] != second[0]).all()  # all is augmented, or nothing
    np.testing.assert_array_equal(first[1:], second[1:])  # from then on the same segments


def test_going_on_in_the_same_process_compiles_nothing(tmp_path, monkeypatch):
    made = three_phases(structure="going on")
    with monkeypatch.context() as patch:
        patch.setattr(stop.Stop, "due", lambda stop, step: step == 6 + 4)
        with pytest.raises(check.Preempted):
            train_on_one(made, tmp_path)
    with compilations() as names:
        train_on_one(made, tmp_path)
    assert counted(names) == {"jit(step)": 0, "jit(evaluate)": 0}

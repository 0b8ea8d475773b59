"""Random edits of every shipped study and search: they are planned, or refused in a sentence.

Planned means: every row builds, the commands of its runs are written, and so is the table of what
they might come to. `AUGJAX_FUZZ=N` makes N edits of each instead of a few; `AUGJAX_FUZZ_PLOTS=1`
also draws the plots of each study that is planned.
"""

import copy
from dataclasses import replace
import functools
import json
import os
from pathlib import Path
import random
from typing import Any

from ml_collections import ConfigDict
import pytest

from augjax import check, data, defaults, recipe, search, study
from augjax.train import folder
from launch import coarse
from launch import study as launch_study
from random_edits import arguments, edited, places, SENTENCE, told, within
from study.small_study import config as small_config, pretend, training
from test_configs import FILES, load, ROOT

EDITS = int(os.environ.get("AUGJAX_FUZZ", "6"))
PLOTS = "AUGJAX_FUZZ_PLOTS" in os.environ
PBA = ROOT / "configs/cifar/pba.py"
TRAININGS = ("quickstart", "resnet20", "efficientnet")  # the configs of one training each
STUDIES = [path for path in FILES if path.stem not in TRAININGS]
OWN = ("phases", "data", "search", "deterministic", "seed")  # of a row: what studies read or set


def plain(path: Path, arg: str | None = None) -> dict:
    """A config as study.json holds it."""
    arg = arg or arguments(path)
    return json.loads(load(path).get_config(*[arg] * (arg is not None)).to_json())


# --- edits ---------------------------------------------------------------------------------------


def study_places(config: dict, draw: random.Random) -> list[tuple]:
    """The places of one field of a study; of its rows those that make it a study."""
    field = draw.choice(sorted(config) + ["rows"] * 5)
    every = [path for path in places(config) if path[0] == field]
    if field != "rows":
        return every
    return [path for path in every if len(path) < 3 or path[2] in OWN or len(path) == 3
            or _is_source(within(config, path)[path[-1]])]


def _is_source(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("row:", "phase:", "scratch", "none"))


def edited_study(config: dict, draw: random.Random) -> tuple[dict, str]:
    """(a copy with one thing changed, what was changed): anything, or what a row takes."""
    if draw.random() < 0.75:
        return edited(config, draw, study_places(config, draw))
    config = copy.deepcopy(config)
    sources = [path for path in places(config) if _is_source(within(config, path)[path[-1]])]
    path = draw.choice([path for path in sources if path[0] == "rows"])
    row = draw.choice((*config["rows"], "nowhere", "", path[1], "\u00e9" * 200, "a b"))
    text = f"row:{row}" + draw.choice(("", "", "", "/0", "/1", "/9999", "/x", "/-1")) + draw.choice(
        ("", "", "", "#student", "#teacher", "#x", "#")) + draw.choice(("", "", "@3", "@x", "@"))
    within(config, path)[path[-1]] = text
    return config, f"{path} = {text}"


# --- what a study comes to -----------------------------------------------------------------------


@functools.cache
def phases_of(row: str) -> tuple[str, ...]:
    return tuple(recipe.expanded(ConfigDict(json.loads(row))))


def planned(config: dict) -> study.Study:
    """As launch.study parses it; a row is read once however many edits leave it alone."""
    return study.parse(config, lambda row: phases_of(json.dumps(row)))


def touched(made: study.Study, of: study.Study | None) -> study.Study:
    """What is left of an edited study if rows that are as they were need no check."""
    rows = [name for name, row in made.rows.items()
            if of is None or name not in of.rows or of.rows[name].config != row.config]
    rows += [run.row for run in made.runs if any(need.row in rows for need in made.needed(run))]
    whole = {run.row for run in made.with_needs(rows)}
    return replace(made, rows={name: made.rows[name] for name in made.rows if name in whole})


def refusal(config: dict, workdir: Path, of: study.Study | None = None) -> str:
    """The sentence with which a study is refused; "" where it can be trained and told."""
    try:
        config = json.loads(json.dumps(config))
        made = planned(config)
        launch_study.check_rows(touched(made, of), {})
        any(row.config["deterministic"] for row in made.rows.values())  # as launch.study.prepare
        study.check_folders(made, workdir)
        study.lines(made, workdir, ["x"]), study.slurm(made, workdir, ["x"], ROOT)
        coarse.rows_wanted(made, workdir), coarse.told(made, workdir)
        finish(made, workdir)
        coarse.rows_wanted(made, workdir), coarse.told(made, workdir)
        study.markdown(study.gather(made, workdir))
        if PLOTS:
            study.report(made, workdir)
    except check.AugjaxError as error:
        assert error.exit_code == 2, error
        assert SENTENCE.fullmatch(str(error)), str(error)
        return str(error)
    return ""


def finish(made: study.Study, workdir: Path) -> None:
    """Leaves run folders as if some runs were done, with what training would have told of them."""
    for number, run in enumerate(made.runs[:12]):
        place = pretend(workdir, made, str(run), 0.5 + number / 100)
        summary = json.loads((place / "summary.json").read_text())
        config = made.rows[run.row].config
        for name, phase in summary["phases"].items():
            block = config.get(name) or config[name.rpartition("-")[0]]
            kinds = ("", "ema_") if block.get("ema") else ("",)
            holds = ("holdout_", "") if config["data"]["holdout"] else ("",)
            phase |= {f"{kind}{hold}accuracy": 0.25 for kind in kinds for hold in holds}
        folder.write_json(place / "summary.json", summary)


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_edited_study_is_planned_or_refused_in_a_sentence(path, tmp_path):
    whole, draw = plain(path), random.Random(f"{path.parent.name}/{path.name}")
    of, wrong, refused = planned(whole), [], 0
    for number in range(EDITS):
        config, what = edited_study(whole, draw)
        refused += told(lambda: refusal(config, tmp_path / str(number), of), what, wrong)
    assert not wrong, f"{len(wrong)} of {EDITS}:\n" + "\n".join(wrong)
    assert refused > EDITS / 4


# --- searches ------------------------------------------------------------------------------------


def search_refusal(config: dict) -> str:
    """The sentence with which launch.search refuses a config; "" where it would begin."""
    try:
        config = json.loads(json.dumps(config))
        like = data.described("cifar10")
        held = replace(like.train, reader=copy.copy(like.train.reader))  # other images
        search.check_search(recipe.build_search(ConfigDict(config), replace(like, holdout=held)))
    except check.AugjaxError as error:
        assert error.exit_code == 2, error
        assert SENTENCE.fullmatch(str(error)), str(error)
        return str(error)
    return ""


def test_an_edited_search_begins_or_is_refused_in_a_sentence():
    whole, draw = plain(PBA, "part=search,scale=tiny"), random.Random(0)
    every, wrong, refused = places(whole), [], 0
    own = [path for path in every if path[0] == "search"]
    for _ in range(4 * EDITS):
        config, what = edited(whole, draw, draw.choice((own, own, every)))
        refused += told(lambda: search_refusal(config), what, wrong)
    assert not wrong, f"{len(wrong)} of {4 * EDITS}:\n" + "\n".join(wrong)
    assert refused > EDITS


# --- what fuzzing has found ----------------------------------------------------------------------

GONE = object()  # a field that is taken away
SCORED = defaults.optimum("m", (1.0,), "s", (0.0,), (("plain",),)).to_dict()
DRAWN = defaults.figure("m", (1.0,), {"l": ("plain",)}).to_dict()
CLAIMED = defaults.comparison("kd > plain", "x").to_dict()
FOUND = {  # {field of a small study: [(value, part of the sentence)]}; a traceback once, or taken
    # without a word
    "title": [(None, "title: expected a text, got None")],  # only once everything was trained
    "data_note": [(("ce",), "data_note: expected a text")],
    "weights": [("ema", "student.ema of row 'kd'"), ([], "a text")],
    "devices_per_run": [({}, "a whole number"), (1.5, "a whole number"), (True, "a whole number")],
    "rows": [(True, "rows: expected a block of fields")],
    "rows/plain/data": [("x", "none of data.name"), (GONE, "none of data.name")],
    "rows/plain/data/image_size": [(GONE, "none of data.image_size"), ("8", "a whole number"),
                                   (-8, "0 to 10,000"), (10**18, "0 to 10,000")],
    "rows/plain/data/holdout": [(GONE, "none of data.holdout")],
    "rows/plain/deterministic": [(GONE, "none of deterministic")],
    "rows/plain/phases": [(3, "config.phases: expected a list"), (((1, 2), 3), "each is a text")],
    "rows/plain/student/repeat": [({"sparsity": ()}, "lists of one length")],
    "rows/plain/student/views/train/policy": [
        ({"kind": "replay", "schedule": 3}, "expected"), ({"kind": "replay"}, "expected")],
    "rows/plain/search": [(3, "a block of fields"), ({"membres": 4}, "Did you mean 'members'"),
                          ({"members": 10**30}, "at most 10,000"), ({"quantile": 2.0}, "0.5")],
    "rows/" + "x" * 300: [(training().to_dict(), "up to 60 letters")],
    "seeds": [(3, "a list of which each is a whole number"), ((True, 2), "a whole number"),
              ((2**32,), "from 0 to 2^32 - 1")],
    "seeds_of": [(False, "a block of fields"), ({"plain": 3}, "seeds of row 'plain'")],
    "report_of": [(0, "report_of: expected a block of fields")],
    "published": [("x", "a block of fields"), ({"kd": 70.0}, "published.kd: expected a block")],
    "published/kd": [({"top1": "70", "source": "x"}, "published.kd.top1: expected a finite number"),
                     ({"top1": 70.0, "source": ("x",)}, "published.kd.source: expected a text"),
                     ({"top1": 70.0, "source": "x", "top1_std": None}, "top1_std: expected a fin")],
    "comparisons": [(True, "a list"), ((1,), "comparisons.0: expected a block of fields"),
                    (({"says": "kd > plain"},), "none called source"),
                    (({**CLAIMED, "says": 3},), "comparisons.0.says: expected a text"),
                    (({**CLAIMED, "source": 3},), "comparisons.0.source: expected a text")],
    "figures": [(None, "a block of fields"), ({"f": 3}, "figures.f: expected a block of fields"),
                ({"f": {"x": (1.0,)}}, "none called x_label, lines"), ({"rows": DRAWN}, "got rows"),
                ({"f" * 200: DRAWN}, "up to 60 letters")],
    "figures/f": [({**DRAWN, "x": ("a",)}, "each is a finite number"),
                  ({**DRAWN, "x": (1e308,)}, "figures.f.x: expected numbers from -1e+100"),
                  ({**DRAWN, "lines": {"l": 3}}, "figures.f.lines.l: expected a list"),
                  ({**DRAWN, "colour": "red"}, "field of figures.f")],
    "curves": [(3, "a block of fields"), ({"c": {"rows": ()}}, "none called metric"),
               ({"c": {"metric": "phase", "rows": ("kd",)}}, "one that is a number"),
               ({"c": {"metric": "loss", "rows": 3}}, "curves.c.rows: expected a list")],
    "optima": [((), "a block of fields"), ({"o": {"x": (1.0,)}}, "none called x_label")],
    "optima/o": [({**SCORED, "rows": 3}, "optima.o.rows: expected a list"),
                 ({**SCORED, "rows": (3,)}, "optima.o.rows: expected a list"),
                 ({**SCORED, "x": (), "rows": ((),)}, "different numbers, at least one"),
                 ({**SCORED, "conditions": ("a",)}, "each is a finite number")],
}


def small(path: str, value: Any) -> dict:
    """A study of two rows with one field set."""
    *parents, name = path.split("/")
    made = json.loads(small_config().to_json())
    block = within(made, (*parents, name))
    if value is GONE:
        del block[name]
    else:
        block[name] = value
    return made


@pytest.mark.parametrize("path, value, part", [
    (path, *each) for path, every in FOUND.items() for each in every])
def test_what_was_found_is_refused(path, value, part, tmp_path):
    assert part in refusal(small(path, value), tmp_path)


def test_a_small_study_itself_is_planned(tmp_path):
    assert refusal(small("title", "x"), tmp_path) == ""
    with pytest.raises(AssertionError):
        assert refusal(small("seeds", ()), tmp_path) == ""


@pytest.mark.parametrize("field, value, part", [
    (None, 3, "search: expected a block of fields"), ("view", {}, "search.view: expected a text"),
    ("lowering", "stakced", "Did you mean 'stacked'"), ("quantile", 0.75, "at most 0.5"),
    ("quantile", None, "a finite number"), ("members", True, "a whole number"),
    ("members", 10**30, "at most 10,000"), ("interval_epochs", True, "a whole number"),
])
def test_what_was_found_in_a_search_is_refused(field, value, part):
    made = plain(PBA, "part=search,scale=tiny")
    made["search"] = value if field is None else {**made["search"], field: value}
    assert part in search_refusal(made)


def test_a_word_of_a_phase_may_be_search(tmp_path):
    """What searches is said beside the phases; a view of that name was dropped."""
    made = small("rows/plain/student/views", {"search": defaults.view("crop", pad=1).to_dict()})
    assert list(recipe.as_if_searched(made["rows"]["plain"])["student"]["views"]) == ["search"]
    assert refusal(made, tmp_path) == ""


def test_a_title_may_cost_dollars_and_a_line_may_be_steep(tmp_path):
    """Both ended a study with a traceback, once everything was trained."""
    made = planned(small("title", "$\\frac{$"))
    finish(made, tmp_path)
    assert study.draw(made, study.gather(made, tmp_path), tmp_path)
    assert study.line([(1e-200, 1.0), (2e-200, 2.0), (3e-200, 3.0)]) is None


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in FILES if path.stem != "quickstart"],
                         ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_edited_argument_is_taken_or_refused_in_a_sentence(path):
    """What stands behind a config's colon: --config=configs/cifar/pba.py:scale=tiny."""
    config = load(path)
    words = getattr(config, "WORDS", {"scale": ("full", "small", "tiny")})
    draw, wrong = random.Random(f"{path.name}"), []
    for _ in range(EDITS):
        parts = [f"{draw.choice((*words, 'scael', ''))}={draw.choice((*known, 'x', '', '-1'))}"
                 for known in draw.choices([words[key] for key in sorted(words)], k=2)]
        arg = draw.choice((",", ",,", "=")).join(parts)
        told(lambda: argument_refusal(config, arg), arg, wrong)
    assert not wrong, f"{len(wrong)} of {EDITS}:\n" + "\n".join(wrong)


def argument_refusal(config, arg: str) -> str:
    try:
        config.get_config(arg)
    except check.ConfigError as error:
        assert SENTENCE.fullmatch(str(error)), str(error)
        return str(error)
    return ""

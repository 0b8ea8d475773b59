"""launch.study as a user types it: exit codes, sentences, and what lies in the folder."""

import json
from pathlib import Path
import shlex
import subprocess

import pytest
from test_launch import command, ROOT

from augjax.train import folder

SMALL = "--config=tests/study/small_study.py"


def test_nan_in_one_row_leaves_the_others_and_ends_with_5(tmp_path):
    done = command("launch.study", f"{SMALL}:nan", f"--workdir={tmp_path}/study",
                   "--config.title=Wild")
    assert done.returncode == 5, done.stderr
    assert "[1/2] plain/0 is done" in done.stderr and "wild/0 failed with 5" in done.stderr
    text = (tmp_path / "study/table.md").read_text()
    assert text in done.stdout and text.startswith("# Wild")
    assert "| wild | 0 of 1, 1 failed | not measured |" in text and "| plain | 1 |" in text
    assert f"`python -m launch.study {SMALL}:nan --config.title=Wild`" in text
    table = json.loads((tmp_path / "study/table.json").read_text())
    assert table["rows"][0]["not_counted"]["0"]["exit_code"] == 5
    assert sorted(path.name for path in (tmp_path / "study/plots").iterdir()) == [
        "epochs.png", "rows.png"]
    run = tmp_path / "study/runs/plain/0"
    for name in ("config.json", "provenance.json", "summary.json", "checkpoints"):
        assert (run / name).exists(), name
    assert "def get_config" in json.loads((run / "provenance.json").read_text())["config_source"]


def test_a_printed_line_is_a_run_and_waits_for_what_it_needs(tmp_path):
    listed = command("launch.study", SMALL, f"--workdir={tmp_path}", "--list",
                     "--data_dir=/somewhere")
    assert listed.returncode == 0, listed.stderr
    lines = [line for line in listed.stdout.splitlines() if not line.startswith("#")]
    assert [line.split("--run=")[1] for line in lines] == ["plain/0", "kd/0"]
    stored = json.loads((tmp_path / "study.json").read_text())
    assert stored["config"]["rows"]["kd"]["data"]["dir"] == "/somewhere"
    moved = command("launch.study", f"--workdir={tmp_path}", "--list", "--data_dir=/moved")
    assert moved.returncode == 0, moved.stderr
    stored = json.loads((tmp_path / "study.json").read_text())
    assert {row["data"]["dir"] for row in stored["config"]["rows"].values()} == {"/moved"}
    done = subprocess.run(shlex.split(lines[1]), cwd=ROOT, capture_output=True, text=True,
                          timeout=200, check=False)
    assert done.returncode == 4, done.stderr
    assert "plain/0 not done" in done.stderr and "Traceback" not in done.stderr
    assert not Path(tmp_path / "runs").exists()


@pytest.mark.parametrize("flags, part", [
    (["--config.rows.kd.student.terms.kd.kind=hintn"], "row 'kd': student.terms.kd.kind"),
    (["--config.rows.kd.student.epoch=1"], "epochs"),
    (["--list", "--table"], "choose one"),
])
def test_wrong_flags_end_with_2_before_anything_is_written(tmp_path, flags, part):
    done = command("launch.study", SMALL, f"--workdir={tmp_path}/study", *flags)
    assert done.returncode == 2, done.stderr
    assert part.lower() in done.stderr.lower() and "Traceback" not in done.stderr
    assert not (tmp_path / "study").exists()


def test_two_studies_in_one_folder_refuse_each_other(tmp_path):
    with folder.held(tmp_path):
        done = command("launch.study", SMALL, f"--workdir={tmp_path}", "--list")
    assert done.returncode == 2, done.stderr
    assert "no other run in it" in done.stderr
    assert not (tmp_path / "study.json").exists()

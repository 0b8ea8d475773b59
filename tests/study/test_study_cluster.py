"""Lines and SLURM arrays: what is printed runs, in order of need, with a `sbatch` of our own."""

import os
import subprocess
from types import SimpleNamespace

import pytest
from small_study import planned, pretend, taught, training

from augjax import study

COMMAND = ("python", "-m", "launch.study", "--workdir=/w/a b")


@pytest.fixture
def made():
    return planned(rows={"kd": taught(), "plain": training(), "other": training()}, seeds=(0, 1))


def test_a_line_for_each_run_that_is_not_done(made, tmp_path):
    pretend(tmp_path, made, "other/1", 0.5)
    study.folders.note_failure(tmp_path, made.run("other/0"), 5, "NaN")
    head = "python -m launch.study '--workdir=/w/a b' --run="
    assert study.lines(made, tmp_path, COMMAND).splitlines() == [
        head + "plain/0", head + "plain/1", "# when all above are done:", head + "kd/0",
        head + "kd/1"]
    assert head + "other/0" in study.lines(made, tmp_path, COMMAND, retry=True)


def test_nothing_left_is_nothing_said(made, tmp_path):
    for run in made.runs:
        pretend(tmp_path, made, str(run), 0.5)
    assert study.lines(made, tmp_path, COMMAND) == ""
    assert study.waiting(made, tmp_path) == []


SBATCH = """#!/usr/bin/env bash
echo "$@" >> {log}
cat > {root}/job
count=$(wc -l < {log})
for argument in "$@"; do
  case $argument in --array=*) last=${{argument##*-}};; esac
done
for task in $(seq 0 "$last"); do
  SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task bash {root}/job
  echo "task $task ended with $?" >> {log}.codes
done
echo "$count"
"""


def fake_slurm(root, ended_with=0):
    """A folder of commands: sbatch runs every task at once, srun runs what it is given."""
    bin = root / "bin"
    bin.mkdir()
    scripts = {
        "sbatch": SBATCH.format(log=root / "sbatch.log", root=root),
        "srun": '#!/usr/bin/env bash\nexec "$@"\n',
        "scontrol": f'#!/usr/bin/env bash\necho "$@" >> {root}/scontrol.log\n',
        "study": f'#!/usr/bin/env bash\necho "$*" >> {root}/runs.log\nexit {ended_with}\n',
    }
    for name, text in scripts.items():
        (bin / name).write_text(text)
        (bin / name).chmod(0o755)
    return {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"}


def submitted(made, root, ended_with=0):
    """What SLURM was asked and what the tasks ran."""
    script = root / "study.sh"
    script.write_text(study.slurm(made, root / "a study", ("study", "--workdir=a study"), root))
    done = subprocess.run(["bash", str(script), "--gpus=1", "--time=8:00:00"], text=True,
                          capture_output=True, env=fake_slurm(root, ended_with), check=False)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(
        said=done.stdout, asked=(root / "sbatch.log").read_text().splitlines(),
        ran=(root / "runs.log").read_text().splitlines(),
        codes=(root / "sbatch.log.codes").read_text().splitlines())


def test_arrays_run_every_run_after_what_it_needs(made, tmp_path):
    seen = submitted(made, tmp_path)
    first, second, table = seen.asked
    assert "--array=0-3" in first and "--dependency" not in first
    assert "--array=0-1" in second and "--dependency=afterany:1" in second
    assert "--dependency=afterany:2" in table
    for asked in seen.asked:
        assert "--gpus=1 --time=8:00:00" in asked and "--requeue --signal=TERM@120" in asked
    assert seen.ran == ["--workdir=a study --run=plain/0", "--workdir=a study --run=other/0",
                        "--workdir=a study --run=plain/1", "--workdir=a study --run=other/1",
                        "--workdir=a study --run=kd/0", "--workdir=a study --run=kd/1",
                        "--workdir=a study --table"]
    assert (tmp_path / "a study/logs").is_dir()
    assert not (tmp_path / "scontrol.log").exists()
    assert "a study/table.md" in seen.said


def test_a_preempted_task_goes_back_into_the_queue(made, tmp_path):
    seen = submitted(made, tmp_path, ended_with=75)
    again = (tmp_path / "scontrol.log").read_text().splitlines()
    assert again[:4] == ["requeue 7_0", "requeue 7_1", "requeue 7_2", "requeue 7_3"]
    assert seen.codes[0] == "task 0 ended with 75"


def test_a_failed_task_says_so(made, tmp_path):
    assert submitted(made, tmp_path, ended_with=5).codes[0] == "task 0 ended with 5"
    assert not (tmp_path / "scontrol.log").exists()

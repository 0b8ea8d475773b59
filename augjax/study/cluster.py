"""A study's runs as lines of a shell and as SLURM arrays, for clusters that start them."""

from collections.abc import Sequence
from pathlib import Path
import shlex

from augjax.study import folders
from augjax.study.plan import Run, Study
from augjax.study.runs import lost

SCRIPT = """\
#!/usr/bin/env bash
# {count} runs of a study as SLURM arrays, each after the runs that it needs, then its table.
# Usage: bash THIS_FILE [sbatch options, such as --gpus=1 --time=8:00:00 --partition=NAME]
# A task that is preempted (exit code 75) puts itself back into the queue and continues.
set -euo pipefail
cd {root}
mkdir -p {logs}
options=("$@")

queue() {{  # queue JOB COMMAND...: an array of these commands once JOB has ended; prints its number
  local after=$1
  shift
  sbatch --parsable --job-name=augjax-study --ntasks=1 --requeue --signal=TERM@120 \\
    --array="0-$(($# - 1))" --output={logs}/slurm-%A_%a.txt \\
    ${{after:+--dependency=afterany:"$after"}} "${{options[@]}}" <<END
#!/usr/bin/env bash
commands=($(printf '%q ' "$@"))
srun bash -c "\\${{commands[\\$SLURM_ARRAY_TASK_ID]}}"
code=\\$?
if [ "\\$code" -eq 75 ]; then
  scontrol requeue "\\${{SLURM_ARRAY_JOB_ID}}_\\$SLURM_ARRAY_TASK_ID"
fi
exit "\\$code"
END
}}

job=""
{arrays}
job=$(queue "$job" {table})
echo "the last job, $job, writes {workdir}/table.md"
"""


def waiting(study: Study, workdir: str | Path, retry: bool = False) -> list[list[Run]]:
    """The runs that are not done, in groups: each group needs only what stands before it."""
    found = folders.states(study, Path(workdir))
    left = [run for run, state in found.items() if not state.done and (retry or not lost(state))]
    levels = sorted({study.level(run) for run in left})
    return [[run for run in left if study.level(run) == level] for level in levels]


def lines(study: Study, workdir: str | Path, command: Sequence[str], retry: bool = False) -> str:
    """A line of shell for each run that is not done; comments say what must be done before."""
    groups = [[_line(command, f"--run={run}") for run in group]
              for group in waiting(study, workdir, retry)]
    return "\n# when all above are done:\n".join("\n".join(group) for group in groups)


def slurm(study: Study, workdir: str | Path, command: Sequence[str], root: str | Path,
          retry: bool = False) -> str:
    """A script that queues every run that is not done; `command` works in folder `root`."""
    groups = waiting(study, workdir, retry)
    arrays = ["job=$(queue \"$job\" \\\n  " + " \\\n  ".join(
        shlex.quote(_line(command, f"--run={run}")) for run in group) + ")" for group in groups]
    return SCRIPT.format(
        count=sum(map(len, groups)), root=shlex.quote(str(root)), arrays="\n".join(arrays),
        logs=shlex.quote(str(Path(workdir) / "logs")), workdir=workdir,
        table=shlex.quote(_line(command, "--table")))


def _line(command: Sequence[str], *more: str) -> str:
    return shlex.join([*command, *more])

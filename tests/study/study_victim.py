"""A study to be killed: `python study_victim.py WORKDIR ROW/SEED STEP`.

Trains `small_study.config()` and kills itself once that run has written that step's row.
"""

import os
from pathlib import Path
import signal
import sys

sys.path[:0] = [str(Path(__file__).resolve().parents[up]) for up in (0, 1, 2)]

import conftest  # noqa: E402, F401 the compile cache, and as many devices as in the tests
import jax  # noqa: E402
from small_study import build, planned  # noqa: E402

from augjax import study  # noqa: E402
from augjax.train import metrics  # noqa: E402

WORKDIR, RUN, STEP = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def main() -> None:
    place, row = [], metrics.Log.row
    folder_of = study.runs.folders.folder_of

    def known(workdir, run):
        place[:] = [str(run)]
        return folder_of(workdir, run)

    def struck(log, kind, step, values):
        row(log, kind, step, values)
        if (place, kind, step) == ([RUN], "train", STEP):
            os.kill(os.getpid(), signal.SIGKILL)

    study.runs.folders.folder_of = known
    metrics.Log.row = struck
    study.train_here(planned(), WORKDIR, build, devices=jax.devices()[:1])


main()

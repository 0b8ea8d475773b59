"""Measures ratios in one run; every row is written as it is measured, a second call goes on.

python -m launch.benchmark SUITE --json=FILE [--deadline_s=N]
"""

import datetime
import importlib
import json
from pathlib import Path
import time

from absl import flags

from augjax import check
from augjax.train import folder
from launch import common
from launch.benchmarks import measure

SUITES = ("augment", "tpu", "train")
JSON = flags.DEFINE_string("json", None, "Where the rows are written; rows in it are not repeated.")
DEADLINE = flags.DEFINE_float("deadline_s", float("inf"), "Start no row after this many seconds.")


def main(suite: str) -> None:
    check.one_of("suite", suite, SUITES)
    check.require(bool(JSON.value), "launch.benchmark", "--json=FILE", "none", "name a file")
    path, began = Path(JSON.value), time.monotonic()
    stored = json.loads(path.read_text()) if path.exists() else {"rows": []}
    done = {row["row"] for row in stored["rows"]}
    for name, work in importlib.import_module(f"launch.benchmarks.{suite}").ROWS.items():
        if name in done or time.monotonic() - began > DEADLINE.value:
            continue
        stored["rows"].append(work(name))
        stored |= {"suite": suite, "hardware": folder.hardware(),
                   "date": datetime.date.today().isoformat(), "versions": folder.versions()}
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.write_json(path, stored)
        print(measure.table(stored["rows"][-1:]).splitlines()[-1], flush=True)
    print(f"\n{stored.get('hardware', '')}\n{measure.table(stored['rows'])}")


if __name__ == "__main__":
    common.run(main, positionals=("SUITE",))

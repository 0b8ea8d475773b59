"""Measures ratios in one run; every row is written as it is measured, a second call goes on.

python -m launch.benchmark SUITE --json=FILE [--deadline_s=N]

The suite "gpu" is for the minutes of one session that has a GPU: the most important rows of all
suites first, and what has no GPU to run on is shrunk or says so. Rows of models are also written
as FILE's name with .csv, in timm's columns.
"""

import datetime
import importlib
import json
from pathlib import Path
import time
from typing import Any

from absl import flags
import jax

from augjax import check
from augjax.train import files, folder
from launch import common
from launch.benchmarks import measure

SUITES = ("augment", "compress", "distill", "gpu", "input", "models", "search", "topologies",
          "tpu", "train")
JSON = flags.DEFINE_string(
    "json", None, "Where the rows are written; what was measured there is not measured again.")
DEADLINE = flags.DEFINE_float("deadline_s", float("inf"), "Start no row after this many seconds.")


def main(suite: str) -> None:
    check.one_of("suite", suite, SUITES)
    check.require(bool(JSON.value), "launch.benchmark", "--json=FILE", "none", "name a file")
    path = common.writable(files.require_disk(JSON.value, "--json"), "--json")
    stored, began = measured(path), time.monotonic()
    done = {row["row"] for row in stored["rows"]}
    module = importlib.import_module(f"launch.benchmarks.{suite}")
    if devices := getattr(module, "CPU_DEVICES", None):
        jax.config.update("jax_num_cpu_devices", devices)
    for name, work in module.ROWS.items():
        if name in done or time.monotonic() - began > DEADLINE.value:
            continue
        stored["rows"].append(work(name))
        stored |= {"suite": suite, "hardware": folder.hardware(),
                   "date": datetime.date.today().isoformat(), "versions": folder.versions()}
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.write_json(path, stored)
        if table := measure.csv_table(stored["rows"]):
            path.with_suffix(".csv").write_text(table)
        print(measure.table(stored["rows"][-1:]).splitlines()[-1], flush=True)
    print(f"\n{stored.get('hardware', '')}\n{measure.table(stored['rows'])}")


def measured(path: Path) -> dict[str, Any]:
    """What an earlier call wrote, less what it could not measure."""
    if not path.exists():
        return {"rows": []}
    with check.refusing(f"--json {path}", "a file that launch.benchmark wrote", "name another"):
        stored = json.loads(path.read_text())
        return stored | {"rows": [row for row in stored["rows"]
                                  if row["row"] and row["verdict"] != "not measured"]}


if __name__ == "__main__":
    common.run(main, positionals=("SUITE",))

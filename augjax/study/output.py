"""table.json, table.md and the plots of a study, written from what lies in its folder."""

import os
from pathlib import Path
from typing import Any

from augjax.study.text import markdown
from augjax.study.plan import Study
from augjax.study.plots import draw
from augjax.study.table import gather
from augjax.train import folder


def report(study: Study, workdir: str | Path, command: str = "") -> dict[str, Any]:
    """Writes table.json, table.md and plots/*.png; returns the table (see `gather`)."""
    workdir = Path(workdir)
    table = gather(study, workdir, command)
    folder.write_json(workdir / "table.json", table)
    temporary = workdir / "table.md.tmp"
    temporary.write_text(markdown(table))
    os.replace(temporary, workdir / "table.md")
    draw(study, table, workdir)
    return table

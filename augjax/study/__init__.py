"""Studies: many runs, one table, the published numbers beside ours.

A study is rows (whole training configs) times seeds. `parse` checks it, `train_here` or
`train_side_by_side` trains what is not done yet, `lines` and `slurm` write it down for a cluster,
`report` makes the table from the run folders alone, whoever trained them.
"""

from augjax.study.beside import (
    leash as leash, seats as seats, Start as Start, train_side_by_side as train_side_by_side,
)
from augjax.study.cluster import lines as lines, slurm as slurm, waiting as waiting
from augjax.study.compare import (
    Claim as Claim, direction as direction, interval as interval, parse_claim as parse_claim,
    spread as spread, verdict as verdict,
)
from augjax.study.entries import Curve as Curve, Figure as Figure
from augjax.study.folders import (
    check_folders as check_folders, config_of as config_of, folder_of as folder_of,
    recall as recall, remember as remember, State as State, state_of as state_of,
    states as states,
)
from augjax.study.optimum import choose as choose, line as line, Optimum as Optimum
from augjax.study.output import report as report
from augjax.study.plan import (
    parse as parse, Row as Row, Run as Run, Study as Study, Taken as Taken,
)
from augjax.study.plots import curves as curves, draw as draw, followed as followed
from augjax.study.runs import (
    Build as Build, exit_code as exit_code, next_run as next_run, train_here as train_here,
    train_one as train_one,
)
from augjax.study.table import (
    gather as gather, held_out as held_out, TIME_FIELDS as TIME_FIELDS,
)
from augjax.study.text import markdown as markdown

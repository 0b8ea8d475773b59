"""Training: phases, the one loop, checkpoints that never lie."""

from augjax.train.loop import evaluate_source as evaluate_source, run as run
from augjax.train.optimizers import adam as adam, OPTIMIZERS as OPTIMIZERS, sgd as sgd
from augjax.train.phases import (
    Phase as Phase, Recipe as Recipe, RESERVED as RESERVED, Source as Source,
)
from augjax.train.summary import table as table
from augjax.train.update import make_update as make_update

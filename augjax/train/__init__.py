"""Training: phases, the one loop, checkpoints that never lie."""

from augjax.train.dry import (
    needs as needs, needs_table as needs_table, topology_mesh as topology_mesh,
)
from augjax.train.evaluate import Branches as Branches
from augjax.train.loop import evaluate_source as evaluate_source, run as run
from augjax.train.optimizers import (
    adam as adam, from_optax as from_optax, OPTAX as OPTAX, OPTIMIZERS as OPTIMIZERS,
    rmsprop_tf as rmsprop_tf, sgd as sgd,
)
from augjax.train.phases import (
    Phase as Phase, Recipe as Recipe, RESERVED as RESERVED, Source as Source,
)
from augjax.train.sharding import make_mesh as make_mesh
from augjax.train.summary import table as table
from augjax.train.together import (
    kind_of as kind_of, Member as Member, run_together as run_together,
)
from augjax.train.update import make_update as make_update

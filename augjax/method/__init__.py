"""What is minimised: the objective, which rows it picks, how its terms' gradients combine."""

from augjax.method.combine import (
    clipped as clipped, Combine as Combine, weighted_sum as weighted_sum,
)
from augjax.method.objective import Aux as Aux, noted as noted, Objective as Objective
from augjax.method.pick import best as best, keep_all as keep_all, Pick as Pick, top as top

"""What is minimised: the objective, which rows it picks, how its terms' gradients combine."""

from augjax.method.combine import Combine as Combine, weighted_sum as weighted_sum
from augjax.method.objective import Aux as Aux, Objective as Objective
from augjax.method.pick import Pick as Pick, keep_all as keep_all, top as top

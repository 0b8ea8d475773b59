"""augjax: how should data be augmented for a model that is small, pruned, low-bit or taught?

    from augjax import augment, compress, data, losses, method, models, train

Parts are pure functions, `method.Objective` chooses among them, `train.Phase` says how long and
how, `train.Recipe` is a list of phases, `train.run` trains it. `recipe` builds all of that from a
config.
"""

__all__ = [
    "augment", "check", "compress", "data", "defaults", "exchange", "losses", "method", "models",
    "papers", "parts", "recipe", "schedule", "train", "tree", "types",
]

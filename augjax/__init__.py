"""augjax: how should data be augmented for a model that is small, pruned, low-bit or taught?

    from augjax import augment, compress, data, losses, method, models, train

Parts are pure functions, `method.Objective` chooses among them, `train.Phase` says how long and
how, `train.Recipe` is a list of phases, `train.run` trains it. `recipe` builds all of that from a
config.
"""

import importlib
from types import ModuleType

__all__ = [
    "augment", "check", "compress", "data", "defaults", "exchange", "losses", "method", "models",
    "papers", "parts", "prepare", "recipe", "schedule", "search", "study", "train", "tree", "types",
]


def __getattr__(name: str) -> ModuleType:
    """A room, imported when it is first asked for: `import augjax` alone costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")

"""The blocks that configs are made of: every field a phase has, with its default.

A config file states what differs; because every field exists, every field can be overridden by a
flag, and a misspelt one is refused. DESIGN section 5 is the contract.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

NONE = "none"  # where a name is asked for and there is nothing to name


def config(phases: Mapping[str, ConfigDict], data: Mapping[str, Any], **changes: Any) -> ConfigDict:
    """A whole, locked config: its phases in order, the data, and how runs are kept."""
    whole = ConfigDict({
        "phases": tuple(phases),
        "seed": 0,
        "deterministic": False,  # GPUs: choose kernels whose results repeat; slower
        "data": {
            "name": NONE, "dir": "", "holdout": 0, "limit": 0, "image_size": 0,
            "resident": True,  # images lie on the device; False: grain feeds them from the host
        } | dict(data),
        "mesh": {"fsdp": False},
        "checkpoint": {"every_epochs": 1.0, "keep": 2, "milestones": ()},
        "log": {"every_steps": 50},
        **phases,
    })
    return _changed(whole, changes).lock()


def phase(**changes: Any) -> ConfigDict:
    """One phase: plain cross-entropy training of a ResNet-20 unless told otherwise."""
    plain = ConfigDict({
        "model": model("resnet20"),
        "init": "scratch",  # scratch | phase:NAME | run:DIR[#PHASE[@STEP]]
        "init_weights": "raw",  # raw | ema
        "teacher": NONE,  # none | phase:NAME | run:DIR[#PHASE[@STEP]]
        "teacher_weights": "raw",
        "trains": ("*",),
        "views": {"train": view()},
        "terms": {"ce": term("cross_entropy", label_smoothing=0.0)},
        "combine": "weighted_sum",
        "pick": "keep_all",
        "transform": {},
        "optimizer": optimizer(),
        "epochs": 1.0,
        "batch_size": 128,
        "ema": 0.0,  # decay; 0 keeps no average
        "eval": {"every_epochs": 1.0, "batch_size": 512},
        "repeat": {},  # {sparsity: (...), magnitude: (...)}: once per entry, each from the last
    })
    return _changed(plain, changes)


def model(name: str, **options: Any) -> ConfigDict:
    """A network by name; `bn_images` 0 takes statistics over all rows."""
    known = {"domains": 1, "bn_per_view": False, "bn_images": 0, "dtype": "float32"}
    return ConfigDict({"name": name, **known, **options})


def view(base: str = "crop_flip", policy: Mapping[str, Any] | None = None, pad: int = 4,
         domain: int = 0, rows: int = 1) -> ConfigDict:
    """A view of the images themselves: layers of `augment.BASES` around a policy."""
    return ConfigDict({
        "kind": "augmented", "base": base, "pad": pad, "domain": domain, "rows": rows,
        "policy": dict(policy or {"kind": NONE}),
    })


def mixed(of: str, kind: str = "cutmix", alpha: float = 1.0, probability: float = 1.0,
          pairs: str = "whole_batch", domain: int = 0, rows: int = 1) -> ConfigDict:
    """A view mixed (mixup | cutmix) from view `of`; pairs whole_batch | per_device."""
    return ConfigDict({
        "kind": kind, "of": of, "alpha": float(alpha), "probability": float(probability),
        "pairs": pairs, "domain": domain, "rows": rows,
    })


def randaugment(magnitude: float, magnitude_schedule: Mapping[str, Any] | None = None,
                num_layers: int = 2, map: str = "torchvision", **options: Any) -> ConfigDict:
    """RandAugment, every image its own operations; options as in `augment.randaugment`."""
    return policy(
        "randaugment", magnitude=float(magnitude), num_layers=num_layers, map=map,
        magnitude_schedule=dict(magnitude_schedule or schedule()),
        **({"probability": 1.0, "noise": 0.0} | options))


def policy(kind: str, fill: Any = 128, interpolation: str = "nearest", **options: Any
           ) -> ConfigDict:
    """A policy of `parts.POLICIES` with its builder's options; fill 0..255, RGB or "mean"."""
    return ConfigDict({"kind": kind, "fill": fill, "interpolation": interpolation, **options})


def term(kind: str, weight: float = 1.0, views: tuple[str, ...] = (), **options: Any) -> ConfigDict:
    """A weighted loss term; `views` () lets it see every row."""
    return ConfigDict({"kind": kind, "weight": float(weight), "weight_schedule": schedule(),
                       "views": views, **options})


def mask(sparsity: float, scope: str = "global") -> ConfigDict:
    """Prunes to `sparsity` before the phase begins, and keeps what is pruned at zero."""
    return ConfigDict({"sparsity": float(sparsity), "scope": scope})


def optimizer(kind: str = "sgd", learning_rate: float = 0.1, **options: Any) -> ConfigDict:
    """Every optimiser's fields; each kind reads its own."""
    fields = {
        "kind": kind, "learning_rate": float(learning_rate), "learning_rate_schedule": schedule(),
        "momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "decay": ("*",),
        "b1": 0.9, "b2": 0.999, "eps": 1e-8,
    }
    return ConfigDict(fields | options)


def schedule(kind: str = "constant", stop: float = 0.0, epochs: tuple[float, ...] = (),
             factors: tuple[float, ...] = (), points: tuple[float, ...] = (),
             warmup_epochs: float = 0.0) -> ConfigDict:
    """How a scalar moves over its phase, starting from its value.

    constant | linear, cosine (to `stop`) | piecewise (times `factors`, each from one of `epochs`
    on) | table (through `points` at `epochs`, the scalar itself unused)
    """
    return ConfigDict({"kind": kind, "stop": float(stop), "epochs": epochs, "factors": factors,
                       "points": points, "warmup_epochs": float(warmup_epochs)})


def _changed(block: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """`changes` replace whole blocks where the names inside are free, fields elsewhere."""
    free = ("views", "terms", "transform", "repeat")
    block.lock()
    for name, value in changes.items():
        if name in free or not isinstance(value, Mapping):
            with block.unlocked() if name in free else block.ignore_type():
                block[name] = ConfigDict(dict(value)) if name in free else value
        elif "name" in value or "kind" in value:
            with block.unlocked():
                block[name] = ConfigDict(dict(value))
        else:
            block[name].update(value)
    return block.unlock()

"""The blocks that configs are made of: every field a phase has, with its default (DESIGN 5).

A config file states what differs. A flag overrides any field that is there, and a misspelt one is
refused. Options that parts alone know are set where a config writes them, or with the whole block:
--config.student.terms.ce='{"kind": "cross_entropy", "label_smoothing": 0.1}'.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from augjax import check

NONE = "none"  # where a name is asked for and there is nothing to name


def chosen(arg: str, words: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """{key: value} of a config's argument, "key=value,key=value", behind its colon.

    `words` are the values that each key may have, the first being its default; none: any text,
    empty by default. Raises ConfigError for an unknown key or value, with the nearest.
    """
    given = dict(part.partition("=")[::2] for part in filter(None, arg.split(",")))
    for key, value in given.items():
        known = words[check.one_of("key of the config's argument", key, words)]
        check.one_of(key, value, known or (value,))
    return {key: known[0] if known else "" for key, known in words.items()} | given


def config(phases: Mapping[str, ConfigDict], data: Mapping[str, Any], **changes: Any) -> ConfigDict:
    """A whole, locked config: its phases in order, the data, and how runs are kept.

    With `search` among the changes (`defaults.search`) it is one for launch.search.
    """
    searched = {"search": changes.pop("search")} if "search" in changes else {}
    whole = ConfigDict({
        "phases": tuple(phases),
        "seed": 0,
        "deterministic": False,  # GPUs: choose kernels whose results repeat; slower
        "data": {
            "name": NONE, "dir": "", "holdout": 0, "limit": 0, "image_size": 0,
            "resident": True,  # images lie on the device; False: they are fed from the host
            "crop": "resnet",  # of images of any size: resnet | efficientnet (data.cropped.Cut)
            "draft": False,  # large JPEGs are decoded at a fraction of their size: other pixels
            "workers": 0,  # processes that decode; 0: a core each where images are of any size
        } | dict(data),
        "mesh": {"fsdp": False},
        "checkpoint": {"every_epochs": 1.0, "keep": 2, "milestones": ()},
        "log": {"every_steps": 50},
        **searched,
        **phases,
    })
    return _changed(whole, changes).lock()


def phase(**changes: Any) -> ConfigDict:
    """One phase: plain cross-entropy training of a ResNet-20 unless told otherwise."""
    plain = ConfigDict({
        "model": model("resnet20"),
        "init": "scratch",  # scratch | phase:NAME | run:DIR[#PHASE[@STEP]]
        "init_weights": "raw",  # raw | ema
        "init_drop": (),  # globs of layers of the source that are left behind: ("extra_*",)
        "init_fresh": (),  # globs of layers that start anew: ("head/*",)
        "teacher": NONE,  # none | phase:NAME | run:DIR[#PHASE[@STEP]]
        "teacher_weights": "raw",
        "onlookers": {},  # more frozen networks, {name: source}, raw weights, that terms name
        "peers": {},  # networks that learn beside the student, {name: peer(...)}
        "trains": ("*",),
        "views": {"train": view()},
        "terms": {"ce": term("cross_entropy", label_smoothing=0.0)},
        "combine": combine(),
        "pick": pick(),
        "transform": {},
        "optimizer": optimizer(),
        "epochs": 1.0,
        "batch_size": 128,  # images of one update
        "accumulate": 1,  # micro-batches that an update is made of, for want of memory
        "ema": 0.0,  # decay; 0 keeps no average
        "eval": {"every_epochs": 1.0, "batch_size": 512},  # or fewer, where there are fewer
        "repeat": {},  # {sparsity: (...), magnitude: (...)}: once per entry, each from the last
    })
    return _changed(plain, changes)


def model(name: str, **options: Any) -> ConfigDict:
    """A network by name; `bn_images` 0 takes statistics over all rows.

    `mean`, `std` (per channel, of pixels / 255), `image_size` (pixels a side that it sees): the
    data set's if not given. `activation_bits` below 32: DoReFa quantises what the layers read, and
    `transform.dorefa` their weights. `scales`: an image size for each of `domains` BatchNorm sets;
    `views`: the only ones that it sees in training; `options`: of its builder (models.MODELS).
    """
    known = {"domains": 1, "bn_per_view": False, "bn_images": 0, "dtype": "float32", "mean": (),
             "std": (), "image_size": 0, "activation_bits": 32, "scales": (), "views": ()}
    return ConfigDict({"name": name, **known, **options})


def peer(model: ConfigDict, init: str = "scratch") -> ConfigDict:
    """A network that learns beside the student, with terms of its own that name it (`net`)."""
    return ConfigDict({"model": model, "init": init, "init_weights": "raw"})


def view(base: str = "crop_flip", policy: Mapping[str, Any] | None = None, pad: int = 4,
         domain: int = 0, rows: int = 1, erase: float = 0.0) -> ConfigDict:
    """A view of the images themselves: layers of `augment.BASES` around a policy.

    `erase` is the share of images in which random erasing fills a box, last of all, with the mean.
    """
    return ConfigDict({
        "kind": "augmented", "base": base, "pad": pad, "domain": domain, "rows": rows,
        "policy": dict(policy or {"kind": NONE}),
        "erase": {"probability": float(erase)},
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


def searched(**options: Any) -> ConfigDict:
    """PBA's policy for a search, which sets its numbers; uncovered pixels become the mean."""
    return policy("pba", fill="mean", probabilities=(0.0,) * 30, levels=(0.0,) * 30, **options)


def term(kind: str, weight: float = 1.0, views: tuple[str, ...] = (), **options: Any) -> ConfigDict:
    """A weighted loss term with options of its builder; `views` () lets it see every row."""
    fields = {"kind": kind, "weight": float(weight), "weight_schedule": schedule(), "views": views}
    return ConfigDict(fields | options)


def combine(kind: str = "weighted_sum", **changes: Any) -> ConfigDict:
    """How the terms' gradients become one, and every field of that kind.

    weighted_sum | clipped (all terms but those of `task` are cut, parameter by parameter, to the
    length of the task's gradient; lambda_mode after_clip | before_clip | ignored)
    """
    fields = {"clipped": {"task": ("ce",), "lambda_mode": "after_clip"}}.get(kind, {})
    return ConfigDict({"kind": kind, **fields, **changes})


def pick(kind: str = "keep_all", **changes: Any) -> ConfigDict:
    """Which rows are worth learning from, and every field of that kind.

    keep_all | top (the best `share` of the rows of `views` by `criterion` kl | teacher_entropy |
    student_entropy, as one view `name`: CutMix-pick) | teacher_filter (of an image's rows in
    `view`, the one that the teacher knows best and the student least); none asks onlookers
    """
    fields = {
        "top": {"criterion": "kl", "views": ("mixed",), "share": 0.5, "name": "picked",
                "scoring": "train_discard", "rule": "global", "tau": 4.0},
        "teacher_filter": {"view": "train", "ce_weight": 1.0, "kl_weight": 1.0, "tau": 4.0,
                           "scoring": "eval"},
    }.get(kind, {})
    return ConfigDict({"kind": kind, **fields, **changes})


def mask(sparsity: float, scope: str = "global", empty_layers: bool = False) -> ConfigDict:
    """Prunes to `sparsity` before the phase (all of a layer too, if `empty_layers`), for good."""
    return ConfigDict({"sparsity": float(sparsity), "scope": scope, "empty_layers": empty_layers})


def dorefa(bits: int) -> ConfigDict:
    """Shows the network its weights in `bits` bits, the first and the last layer's excepted."""
    return ConfigDict({"bits": bits})


def optimizer(kind: str = "sgd", learning_rate: float = 0.1, **options: Any) -> ConfigDict:
    """sgd | adam | rmsprop_tf | any optimiser of optax (`train.OPTAX`: adamw, lamb, lion, ...).

    momentum and nesterov are sgd's, b1, b2 and eps adam's; every other kind takes `options` over
    its own defaults, as a dict: --config.student.optimizer.options='{"b2": 0.95}'.
    """
    fields = {
        "kind": kind, "learning_rate": float(learning_rate), "learning_rate_schedule": schedule(),
        "base_batch": 0,  # 256: the rate is per 256 images, times batch_size / 256; 0: as it is
        "momentum": 0.9, "nesterov": False, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "options": {},
        "weight_decay": 0.0, "decay": ("*",),  # of the parameters whose path fits a glob
        "clip_norm": 0.0,  # largest norm of the whole gradient, L2 included; 0: no clip
    }
    return ConfigDict(fields | options)


def schedule(kind: str = "constant", stop: float = 0.0, epochs: tuple[float, ...] = (),
             factors: tuple[float, ...] = (), points: tuple[float, ...] = (),
             warmup_epochs: float = 0.0, factor: float = 0.97, every_epochs: float = 2.4,
             sparsities: tuple[float, ...] = ()) -> ConfigDict:
    """How a scalar moves over its phase, starting from its value.

    constant | linear, cosine (to `stop`) | piecewise (times `factors`, each once so many of
    `epochs` are over) | exponential (times `factor` after every `every_epochs`) | table (through
    `points` at `epochs`, the scalar itself unused) | sparsity (one value for the phase, through
    `points` at `sparsities`, by that of its mask, 0 without one); over `warmup_epochs` cosine and
    piecewise are times a linear rise from 0 to 1, and exponential rises from 0 to its value there
    """
    return ConfigDict({"kind": kind, "stop": float(stop), "epochs": epochs, "factors": factors,
                       "points": points, "warmup_epochs": float(warmup_epochs),
                       "factor": float(factor), "every_epochs": float(every_epochs),
                       "sparsities": sparsities})


def search(**changes: Any) -> ConfigDict:
    """A search of PBA for the policy of a view: the config's only phase is what members train."""
    return ConfigDict({
        "view": "train",  # its policy is of kind "pba", with numbers that the search replaces
        "members": 16,
        "interval_epochs": 3,  # between decisions
        "quantile": 0.25,  # of the members follow another, and as many are followed
        "lowering": "",  # looped | stacked; "": the backend's own
    } | changes)


# --- studies -------------------------------------------------------------------------------------


def study(title: str, rows: Mapping[str, ConfigDict], claim: str = "",
          seeds: tuple[int, ...] = (0, 1, 2), report: str = "student", scale: str = "full",
          **changes: Any) -> ConfigDict:
    """Rows, each a whole training config, times seeds, ending in one table (launch.study).

    A row takes another row's network wherever a phase takes a source, as
    "row:NAME[/SEED][#PHASE[@STEP]]": that row's run of the same seed, or of its only one.
    """
    fields = {
        "title": title,
        "claim": claim,
        "scale": scale,  # full | small (directions reported, not promised) | tiny (for tests)
        "rows": {name: varied(row, {}) for name, row in rows.items()},
        "seeds": seeds,
        "seeds_of": {},  # {row: its own seeds}: {"teacher": (0,)} is one teacher for all seeds
        "report": report,  # the phase whose accuracy counts
        "report_of": {},  # {row: another phase}
        "weights": "raw",  # whose accuracy counts: raw | ema, averaged | selected, a branch's
        "published": {},  # {row: published(...)}
        "comparisons": (),  # comparison(...), ...
        "figures": {},  # {name: figure(...)}: plots beside those of rows and epochs
        "curves": {},  # {name: curve(...)}: metrics of training over epochs
        "optima": {},  # {name: optimum(...)}: what is best, by held-out images
        "data_note": "",  # what the table adds to the data's name, such as "JPEG copy"
        "devices_per_run": 1,  # where there are several
    }
    return ConfigDict(fields | changes).lock()  # study.parse knows the fields


def varied(row: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy of a training config with fields changed: {"student.epochs": 2.0}; none is new."""
    copy = ConfigDict(row.to_dict()).lock()
    copy.update_from_flattened_dict(changes)
    return copy


def published(top1: float, source: str, **known: Any) -> ConfigDict:
    """Published accuracy in percent, and where; known: top1_std, top5 and the number of `runs`."""
    return ConfigDict({"top1": top1, "source": source, **known})


def comparison(says: str, source: str) -> ConfigDict:
    """A published direction: "kd > plain", or with a margin in points, "pruned > dense - 1.5"."""
    return ConfigDict({"says": says, "source": source})


def figure(x_label: str, x: tuple[float, ...], lines: Mapping[str, tuple[str, ...]]) -> ConfigDict:
    """A plot of accuracy over `x`; `lines` name a row for each x: {"KD": ("kd_5", "kd_9")}."""
    return ConfigDict({"x_label": x_label, "x": x, "lines": dict(lines)})


def curve(metric: str, rows: tuple[str, ...]) -> ConfigDict:
    """A plot over epochs of a metric of training, or else of evaluation: "loss", "pick_ratio", a
    term's name, "branch0_accuracy"."""
    return ConfigDict({"metric": metric, "rows": rows})


def optimum(x_label: str, x: tuple[float, ...], condition_label: str,
            conditions: tuple[float, ...], rows: tuple[tuple[str, ...], ...],
            without: tuple[str, ...] = ()) -> ConfigDict:
    """For each condition (a sparsity) the best and the largest useful x (a magnitude).

    `rows` name a row for each condition and each x, `without` one for each condition that has no
    x at all. Chosen on held-out training images (`data.holdout`), told on the test images.
    """
    return ConfigDict({"x_label": x_label, "x": x, "condition_label": condition_label,
                       "conditions": conditions, "rows": rows, "without": without})


FREE = ("views", "terms", "transform", "repeat", "onlookers", "peers", "options")  # names inside
LISTS = {name: tuple[kind, ...] for kind, names in (  # of what; as the empty ones do not show it
    (float, "mean std epochs factors points sparsities"), (int, "scales milestones"),
    (str, "trains init_drop init_fresh decay views phases"),
) for name in names.split()}


def filled(name: str, block: ConfigDict) -> ConfigDict:
    """A copy of a phase's block in which every field exists and has a value of its type.

    What a part alone knows (a term's options) is its builder's to refuse. Raises ConfigError.
    """
    plain = phase(**{"combine": ""} if isinstance(block.get("combine"), str) else {})
    whole = check.filled(name, block.to_dict(), plain, LISTS, (*FREE, "combine", "pick", "model"))

    def fill(field: str, plain: Any, within: dict, where: str, **more) -> None:
        within[field] = check.filled(f"{where}.{field}", within[field], plain, LISTS, **more)

    fill("model", model(""), whole, name, more=True)
    for view_name, given in whole["views"].items():
        plain = mixed("") if isinstance(given, Mapping) and "of" in given else view()
        fill(view_name, plain, whole["views"], f"{name}.views", free=("policy",))
    for term_name in whole["terms"]:
        fill(term_name, term(""), whole["terms"], f"{name}.terms", more=True)
    for who in whole["peers"]:
        fill(who, peer(model("")), whole["peers"], f"{name}.peers", free=("model",))
        fill("model", model(""), whole["peers"][who], f"{name}.peers.{who}", more=True)
    for field, kind in ("transform", Mapping), ("onlookers", str), ("repeat", tuple[float, ...]):
        for part, given in whole[field].items():
            check.typed(f"{name}.{field}.{part}", given, kind)
    return ConfigDict(whole)


def _changed(block: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """`changes` replace whole blocks where the names inside are free, fields elsewhere."""
    block.lock()
    for name, value in changes.items():
        if name in FREE or not isinstance(value, Mapping):
            with block.unlocked() if name in FREE else block.ignore_type():
                block[name] = ConfigDict(dict(value)) if name in FREE else value
        elif "name" in value or "kind" in value:
            with block.unlocked():
                block[name] = ConfigDict(dict(value))
        else:
            block[name].update(value)
    return block.unlock()

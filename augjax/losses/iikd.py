"""Intra- and inter-relations together (II-KD of role_wise_kd)."""

from collections.abc import Mapping

import jax

from augjax.losses.mhgd import mhgd
from augjax.losses.relational import rkd
from augjax.losses.svd import kd_svd
from augjax.types import Term


def ii_kd(
    taps: tuple[str, ...] = ("f1", "f2", "f3"),
    teacher_taps: tuple[str, ...] = ("f1", "f2", "f3"),
    heads: int = 4,
    pretrain_steps: int = 0,
    project: str = "none",
    max_rows: int = 256,
    student: str = "student",
    teacher: str = "teacher",
) -> Term:
    """RKD on the logits (50, 100) + MHGD + KD-SVD on the taps, each with coefficient 1.

    Its weight is the paper's lambda: 0.4, halved every 60 of 200 epochs (piecewise, factors 0.5),
    beside cross-entropy, with combine "clipped". Options as in `rkd`, `mhgd` and `kd_svd`; the
    paper's taps are the ends of the four stages of ResNet-18. The same three as terms of their own
    give each its own metric.

    Raises ConfigError as its parts do. Source: spec D7 (role_wise_kd Eq. 10).
    """
    names = {"student": student, "teacher": teacher}
    maps = {"taps": taps, "teacher_taps": teacher_taps, "project": project, **names}
    return total({
        "rkd": rkd(50.0, 100.0, "logits", "logits", "role_kd", max_rows=max_rows, **names),
        "mhgd": mhgd(heads=heads, pretrain_steps=pretrain_steps, **maps),
        "kd_svd": kd_svd(**maps),
    })


def total(terms: Mapping[str, Term]) -> Term:
    """The sum of several terms as one, its params and state {name: those of the part}.

    It is per-example if all are, and has places for the images that every part has one for.
    """

    def init(key, signals):
        made = {name: term.init(jax.random.fold_in(key, number), signals)
                for number, (name, term) in enumerate(terms.items())}
        return ({name: params for name, (params, _) in made.items()},
                {name: state for name, (_, state) in made.items()})

    def apply(params, state, signals, key):
        value, after = 0.0, {}
        for number, (name, term) in enumerate(terms.items()):
            part, after[name] = term.apply(
                params[name], state[name], signals, jax.random.fold_in(key, number))
            value += part
        return value, after

    kept = [term.images for term in terms.values() if term.images is not None]
    return Term(init, apply, per_example=all(term.per_example for term in terms.values()),
                images=min(kept, default=None))

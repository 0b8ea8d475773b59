"""Multi-head graph distillation: which rows attend to which, from one map to the next (MHGD)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from augjax import check
from augjax.losses.precise import product, unit
from augjax.losses.projector import Pairs, projector
from augjax.losses.signals import maps_of
from augjax.losses.svd import compressed
from augjax.types import Params, PyTree, Signals, Term

EPS, DECAY = 1e-3, 0.99  # of BatchNorm, and how much of its running statistics a step keeps
SIDES = ("sender", "receiver")  # of the attention; the estimator has "input" and "output"
Vectors = Mapping[str, tuple[jax.Array, jax.Array]]  # {tap: ([R, D], [R, D]), student, teacher}


def mhgd(
    taps: tuple[str, ...] = ("f1", "f2", "f3"),
    teacher_taps: tuple[str, ...] = ("f1", "f2", "f3"),
    heads: int = 4,
    pretrain_steps: int = 0,
    attention_decay: float = 5e-4,
    project: str = "none",
    student: str = "student",
    teacher: str = "teacher",
) -> Term:
    """KL of the student's attention from the teacher's, summed over heads, rows and taps.

    For the first `pretrain_steps` updates the attention learns to tell the teacher's next vectors
    (`attention_loss` + attention_decay times its squared parameters is the value) and the student
    gets nothing from the term; then it rests as it is, in the state, so that neither gradient nor
    weight decay moves it, and the value is `transfer_loss`. KD_methods_with_TF: 8 heads and 40
    epochs of it. With 0 steps the attention stays as drawn, with neutral BatchNorm statistics, and
    the term has no parameters: the release of role_wise_kd, 4 heads.

    Channels must agree tap by tap, or be brought together (`project`: none | student | teacher,
    see `projector`). A row with an empty map has the vector 0. A single row: 0.

    Raises ConfigError for fewer than two taps, steps below 0, heads below 1 (below 2 with
    pre-training, which drops some), and when initialised or traced for unknown nets or taps, no
    maps, or other channels.
    Source: spec D5, D13 (Lee and Song 2019).
    """
    check.require(pretrain_steps >= 0, "pretrain_steps of mhgd", "at least 0", pretrain_steps,
                  "0 leaves the attention as it is drawn")
    least = 2 if pretrain_steps else 1
    check.require(heads >= least, "heads of mhgd", f"at least {least}", heads,
                  "4 and 8 were published")
    fitted = projector(project, "mhgd")

    def pairs(signals: Signals) -> Pairs:
        return maps_of(signals, student, teacher, taps, teacher_taps, "mhgd", least=2)

    def init(key, signals):
        maps = pairs(signals)
        own, fixed = fitted.init(jax.random.fold_in(key, 0), maps)
        together = jax.eval_shape(fitted.apply, own, fixed, maps)
        widths = {tap: f_t.shape[-1] for tap, (_, f_t) in together.items()}
        drawn, statistics = init_attention(jax.random.fold_in(key, 1), widths, heads)
        params = {"projector": own, "attention": drawn if pretrain_steps else {}}
        return params, {"projector": fixed, "attention": _attention_of(drawn),
                        "statistics": statistics, "updates": jnp.zeros((), jnp.int32)}

    def apply(params, state, signals, key):
        vectors = _vectors(fitted.apply(params["projector"], state["projector"], pairs(signals)))
        if not pretrain_steps:
            return transfer_loss(vectors, state["attention"], state["statistics"]), state
        return _pretrained(vectors, params["attention"], state, key, pretrain_steps,
                           attention_decay)

    return Term(init, apply)


def _pretrained(vectors, params, state, key, steps, decay):
    """What the term is worth while its attention learns, and after; and its next state."""
    learns = state["updates"] < steps
    learnt, seen = attention_loss(vectors, params, state["statistics"], key)
    learnt += decay * sum(jnp.sum(w * w) for w in jax.tree.leaves(params))
    # What the last update of the attention made of it arrives with the next one.
    now = _either(state["updates"] <= steps, _attention_of(params), state["attention"])
    given = transfer_loss(vectors, now, state["statistics"])
    after = {"projector": state["projector"], "attention": now,
             "statistics": _either(learns, seen, state["statistics"]),
             "updates": jnp.minimum(state["updates"] + 1, steps + 1)}
    return jnp.where(learns, learnt, given), after


def _either(first, tree, other):
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), tree, other)


def _attention_of(params):
    """Without the estimator."""
    return {name: {side: layers[side] for side in SIDES} for name, layers in params.items()}


def _vectors(pairs: Pairs) -> Vectors:
    found = {}
    for tap, (f_s, f_t) in pairs.items():
        v_s, v_t, _, _ = compressed(f_s, f_t, 1)
        found[tap] = (v_s[..., 0], v_t[..., 0])
    return found


def transfer_loss(vectors: Vectors, attention: Params, statistics: PyTree) -> jax.Array:
    """sum over taps, heads and rows of KL(softmax(tanh A(v_s)) || softmax(tanh A(v_t))).

    Args:
      vectors: {tap: (v_s, v_t)}, [R, D] each; the gradient reaches v_s alone.
      attention, statistics: as `init_attention` makes them; BatchNorm by its statistics.

    Returns [] float32, in nats; it grows with heads and rows. 0 for a single row.
    """
    total, attention = 0.0, jax.lax.stop_gradient(attention)
    for then, now in _consecutive(vectors):
        name = f"{then}-{now}"
        log_s, log_t = (
            jax.nn.log_softmax(jnp.tanh(_attend(
                attention[name], statistics[name], vectors[now][who], vectors[then][who])[0]))
            for who in (0, 1))
        total += jnp.sum(jnp.exp(log_s) * (log_s - jax.lax.stop_gradient(log_t)))
    return total


def attention_loss(vectors: Vectors, attention: Params, statistics: PyTree, key: jax.Array
                   ) -> tuple[jax.Array, PyTree]:
    """(sum over taps of mean over rows of 1 - cos(estimate, v_t), the next statistics).

    The estimate of the teacher's vector at one tap is made of those at the tap before: for each
    head their attention-weighted mean, then a linear layer. A head is dropped for a row where its
    noise is not above the mean of all heads'. BatchNorm by the batch.
    """
    total, seen = 0.0, {}
    for number, (then, now) in enumerate(_consecutive(vectors)):
        name, u, v = f"{then}-{now}", vectors[then][1], vectors[now][1]
        own, kept = attention[name], statistics[name]
        scores, moved = _attend(own, kept, v, u, batch=True)
        graph = jax.nn.softmax(scores)  # [heads, R, R]
        noise = jax.random.normal(jax.random.fold_in(key, number), (*graph.shape[:2], 1))
        graph = graph * (noise > noise.mean(0, keepdims=True))
        y, _ = _norm(own["input"], None, u, batch=True)
        gathered = product("hbc,cd->bhd", graph, jax.nn.relu(y))
        flat = gathered.reshape(len(u), -1)
        estimate = unit(product("rc,cd->rd", flat, own["output"]["kernel"]) + own["output"]["bias"])
        total += jnp.mean(1 - jnp.sum(estimate * v, -1))
        seen[name] = moved
    return total, jax.lax.stop_gradient(seen)


def init_attention(key: jax.Array, widths: Mapping[str, int], heads: int
                   ) -> tuple[Params, PyTree]:
    """(parameters, BatchNorm statistics) of the attention between consecutive taps.

    {"f1-f2": {"sender", "receiver": of the attention; "input", "output": of the estimator}}.
    """
    params, statistics = {}, {}
    for number, (then, now) in enumerate(_consecutive(widths)):
        half = (widths[then] + widths[now]) // 2
        made = {"sender": (widths[now], half * heads), "receiver": (widths[then], half * heads),
                "input": (widths[then], half), "output": (half * heads, widths[now])}
        name, own_key = f"{then}-{now}", jax.random.fold_in(key, number)
        params[name], statistics[name] = {}, {}
        for place, (layer, shape) in enumerate(made.items()):
            kernel = jax.nn.initializers.he_normal()(
                jax.random.fold_in(own_key, place), shape, jnp.float32)
            zeros, ones = jnp.zeros(shape[1:], jnp.float32), jnp.ones(shape[1:], jnp.float32)
            params[name][layer] = {"kernel": kernel, "bias": zeros}
            if layer != "output":
                params[name][layer]["scale"] = ones
            if layer in SIDES:  # the estimator goes by the batch alone
                statistics[name][layer] = {"mean": zeros, "var": ones}
    return params, statistics


def _consecutive(taps):
    names = list(taps)
    return list(zip(names, names[1:]))


def _attend(params, statistics, v, u, batch=False):
    """How much row b at this tap attends to row c at the tap before: [heads, R, R]."""
    moved, sides = {}, []
    half = (v.shape[1] + u.shape[1]) // 2
    for side, x in zip(SIDES, (v, u)):
        x, moved[side] = _norm(params[side], statistics[side], x, batch)
        sides.append(x.reshape(len(x), half, -1))
    return product("bdh,cdh->hbc", *sides), moved


def _norm(params, statistics, x, batch):
    """A linear layer and BatchNorm, by the batch or by its statistics; and the next statistics."""
    x = product("rc,cd->rd", x, params["kernel"])
    used = {"mean": x.mean(0), "var": x.var(0)} if batch else statistics
    x = (x - used["mean"]) / jnp.sqrt(used["var"] + EPS)
    if batch and statistics:
        statistics = {name: DECAY * statistics[name] + (1 - DECAY) * used[name] for name in used}
    return x * params["scale"] + params["bias"], statistics

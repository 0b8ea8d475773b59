"""MHGD: the attention by hand, its pre-training, and what stays as it is afterwards."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, losses
from augjax.losses.mhgd import attention_loss, init_attention, transfer_loss
from augjax.losses.svd import compressed
from losses.scene import changed, drawn, jit, KEY, ROWS, scene

TAPS = ("f1", "f2")
PAIR = {"taps": TAPS, "teacher_taps": TAPS}
HEADS = 4


@jit
def vectors(signals):
    """{tap: (v_s, v_t)}, [R, D] each."""
    found = {}
    for tap in TAPS:
        maps = [signals.outputs[net].features[tap] for net in ("student", "teacher")]
        found[tap] = tuple(v[..., 0] for v in compressed(*maps, 1)[:2])
    return found


def attention_by_hand(params, statistics, now, then, heads=HEADS):
    """A[h, b, c], head by head and number by number, float64."""
    half = (now.shape[1] + then.shape[1]) // 2

    def side(layer, kept, x):
        x = x @ np.asarray(layer["kernel"], float)
        x = (x - kept["mean"]) / np.sqrt(np.asarray(kept["var"], float) + 1e-3)
        return (x * layer["scale"] + layer["bias"]).reshape(len(x), half, heads)

    s = side(params["sender"], statistics["sender"], np.asarray(now, float))
    r = side(params["receiver"], statistics["receiver"], np.asarray(then, float))
    return np.array([[[s[b, :, h] @ r[c, :, h] for c in range(len(s))] for b in range(len(s))]
                     for h in range(heads)])


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def begun():
    term = losses.mhgd(**PAIR, pretrain_steps=2)
    return term, *jit(lambda: term.init(KEY, jax.eval_shape(scene)))()


def test_the_transfer_by_hand(begun):
    """KL(student || teacher) of softmax(tanh A), summed over heads and rows (spec D5)."""
    _, params, state = begun
    (own,), (kept,) = params["attention"].values(), state["statistics"].values()
    kept = jax.tree.map(lambda x: x + 0.3, kept)  # as if it had seen batches
    seen = vectors(scene())
    p_s, p_t = (
        softmax(np.tanh(attention_by_hand(own, kept, seen["f2"][who], seen["f1"][who])))
        for who in (0, 1))
    found = jit(transfer_loss)(seen, {"f1-f2": own}, {"f1-f2": kept})
    assert float(found) == pytest.approx(np.sum(p_s * np.log(p_s / p_t)), rel=1e-4)


def test_what_the_attention_learns_by_hand(begun):
    """1 - cosine between the teacher's vector and what attention makes of the one before."""
    _, params, _ = begun
    own, seen = params["attention"]["f1-f2"], vectors(scene())
    u, v = (np.asarray(seen[tap][1], float) for tap in TAPS)

    def batch_norm(layer, x):
        x = x @ np.asarray(layer["kernel"], float)
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3), {"mean": x.mean(0), "var": x.var(0)}

    moments = {"sender": batch_norm(own["sender"], v)[1],
               "receiver": batch_norm(own["receiver"], u)[1]}
    graph = softmax(attention_by_hand(own, moments, v, u))
    noise = np.asarray(jax.random.normal(jax.random.fold_in(KEY, 0), (HEADS, ROWS, 1)))
    graph = graph * (noise > noise.mean(0))
    y = np.maximum(batch_norm(own["input"], u)[0], 0)
    joined = np.concatenate([graph[h] @ y for h in range(HEADS)], axis=1)
    estimate = joined @ np.asarray(own["output"]["kernel"], float)
    cosine = np.sum(estimate * v, 1) / np.linalg.norm(estimate, axis=1)
    neutral = init_attention(KEY, {"f1": 3, "f2": 5}, HEADS)[1]
    found, after = jit(attention_loss)(seen, {"f1-f2": own}, neutral, KEY)
    assert float(found) == pytest.approx(np.mean(1 - cosine), rel=1e-4)
    for side, kept in after["f1-f2"].items():
        np.testing.assert_allclose(kept["mean"], 0.01 * moments[side]["mean"], atol=1e-6)
        np.testing.assert_allclose(kept["var"], 0.99 + 0.01 * moments[side]["var"], rtol=1e-5)


def test_first_the_attention_learns_and_then_the_student(begun):
    term, params, state = begun
    signals = scene()
    other = changed(signals, "student", **vars(drawn(9)))
    tree = jax.tree.map

    @jit
    def step(params, state, signals):
        def worth(params, outputs):
            return term.apply(params, state, replace(signals, outputs=outputs), KEY)

        return jax.value_and_grad(worth, argnums=(0, 1), has_aux=True)(params, signals.outputs)

    for update in range(4):
        (worth, after), (of_params, given) = step(params, state, signals)
        (elsewhere, _), _ = step(params, state, other)
        learning = update < 2
        assert (float(worth) == float(elsewhere)) == learning  # whether the student matters
        moves = {name: any(leaf.any() for leaf in jax.tree.leaves(pull)) for name, pull in (
            ("attention", of_params["attention"]), ("student", given["student"]))}
        assert moves == {"attention": learning, "student": not learning}
        assert int(after["updates"]) == min(update + 1, 3)
        if update <= 2:  # what the last update of the attention made of it is what stays
            for side, layer in after["attention"]["f1-f2"].items():
                jax.tree.map(np.testing.assert_array_equal, layer,
                             params["attention"]["f1-f2"][side])
        changes = [not np.array_equal(*pair) for pair in zip(
            *map(jax.tree.leaves, (state["statistics"], after["statistics"])))]
        assert set(changes) == {learning}
        state, params = after, tree(lambda p, g: p - 0.1 * g - 1e-3 * p, params, of_params)
    # What an optimiser still does to the parameters (decay, momentum) changes nothing any more.
    (worth, after), _ = step(params, state, signals)
    (again, _), _ = step(tree(jnp.zeros_like, params), state, signals)
    assert float(worth) == float(again) and worth > 0
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_pretraining_lowers_its_loss(begun):
    _, params, state = begun
    seen, rate = vectors(scene()), 0.3

    @jit
    def step(own):
        (worth, _), pull = jax.value_and_grad(attention_loss, argnums=1, has_aux=True)(
            seen, own, state["statistics"], KEY)
        return worth, jax.tree.map(lambda p, g: p - rate * g, own, pull)

    own, worth = params["attention"], []
    for _ in range(30):
        now, own = step(own)
        worth.append(float(now))
    assert worth[-1] < 0.5 * worth[0]


def test_without_pretraining_there_is_nothing_to_train(begun):
    """The release of role_wise_kd: the attention as drawn, neutral statistics, all at rest."""
    term = losses.mhgd(**PAIR)
    params, state = jit(lambda: term.init(KEY, jax.eval_shape(scene)))()
    assert not jax.tree.leaves(params)
    worth, after = jit(term.apply)(params, state, scene(), KEY)
    jax.tree.map(np.testing.assert_array_equal, after, state)
    expected = jit(transfer_loss)(vectors(scene()), state["attention"], state["statistics"])
    assert float(worth) == pytest.approx(float(expected), rel=1e-5)


def test_the_decay_of_the_attention_is_part_of_its_loss(begun):
    _, params, state = begun
    terms = [losses.mhgd(**PAIR, pretrain_steps=2, attention_decay=decay) for decay in (0.0, 0.5)]
    worth = jit(lambda: [term.apply(params, state, scene(), KEY)[0] for term in terms])()
    squares = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(params))
    assert float(worth[1] - worth[0]) == pytest.approx(0.5 * squares, rel=1e-4)


def test_what_is_wrong_is_refused():
    with pytest.raises(check.ConfigError, match="heads of mhgd: expected at least 1"):
        losses.mhgd(heads=0)
    with pytest.raises(check.ConfigError, match="heads of mhgd: expected at least 2"):
        losses.mhgd(heads=1, pretrain_steps=5)
    with pytest.raises(check.ConfigError, match="pretrain_steps"):
        losses.mhgd(pretrain_steps=-1)

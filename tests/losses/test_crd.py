"""CRD: scores and losses by hand, negatives, the constant of the first batch, the memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, losses
from augjax.losses.crd import contrast_rows, draw_negatives, remember
from losses.scene import IMAGES, jit, KEY, ROWS, scene

WIDTH, NEGATIVES, TAU = 4, 7, 0.07


@pytest.fixture(scope="module")
def begun():
    term = losses.crd(IMAGES, negatives=NEGATIVES, width=WIDTH, teacher="wide")
    return term, *jit(lambda: term.init(KEY, jax.eval_shape(scene)))()


def side_by_hand(g, memory, index, chosen, z=None):
    """One side's loss from lists of gathered rows, float64; and its Z."""
    n = len(memory)
    lists = [np.concatenate([[i], np.flatnonzero(row)]) for i, row in zip(index, chosen)]
    scores = np.array([np.exp(memory[places] @ v / TAU) for places, v in zip(lists, g)])
    z = n * scores.mean() if z is None else z
    p, c = scores / z, NEGATIVES / n
    lost = [np.log(row[0] / (row[0] + c + 1e-7)) + np.sum(np.log(c / (row[1:] + c + 1e-7)))
            for row in p]
    return -np.mean(lost), z


def test_the_loss_by_hand_and_the_constant_of_the_first_batch(begun):
    """Both sides, each against the other's memory; Z stays what the first batch made it."""
    term, params, state = begun
    signals = scene()
    index = np.asarray(signals.rows.index)
    z = {"student": None, "teacher": None}
    apply = jit(term.apply)
    for update in range(2):
        key = jax.random.fold_in(KEY, update)
        chosen = draw_negatives(key, state["label"], signals.rows.label, index, NEGATIVES)
        expected = 0.0
        for side, other, net in (("student", "teacher", "student"), ("teacher", "student", "wide")):
            f = np.asarray(signals.outputs[net].pooled, float)
            g = f @ np.asarray(params[side]["kernel"], float) + params[side]["bias"]
            g = g / np.linalg.norm(g, axis=1, keepdims=True)
            part, z[side] = side_by_hand(
                g, np.asarray(state["memory"][other], float), index, np.asarray(chosen), z[side])
            expected += part
        worth, state = apply(params, state, signals, key)
        assert float(worth) == pytest.approx(expected, rel=1e-4)
        for side in z:
            assert float(state["z"][side]) == pytest.approx(z[side], rel=1e-5)


def test_the_memory_moves_where_rows_were_and_labels_become_known(begun):
    term, params, state = begun
    signals = scene()
    _, after = jit(term.apply)(params, state, signals, KEY)
    for side in ("student", "teacher"):
        old, new = state["memory"][side], after["memory"][side]
        np.testing.assert_array_equal(new[ROWS:], old[ROWS:])
        np.testing.assert_allclose(np.linalg.norm(new[:ROWS], axis=1), 1, rtol=1e-5)
    assert after["label"].tolist() == [*signals.rows.label.tolist(), *[-1] * (IMAGES - ROWS)]
    f = np.asarray(signals.outputs["student"].pooled) @ params["student"]["kernel"]
    g = np.asarray(f + params["student"]["bias"])
    g = g / np.linalg.norm(g, axis=1, keepdims=True)
    mixed = 0.5 * state["memory"]["student"][:ROWS] + 0.5 * g
    np.testing.assert_allclose(after["memory"]["student"][:ROWS],
                               mixed / np.linalg.norm(mixed, axis=1, keepdims=True), rtol=1e-4)


def test_of_several_rows_of_one_image_the_first_is_remembered():
    memory, g = jnp.zeros((4, 2)), jnp.asarray([[1.0, 0], [0, 1], [-1, 0]])
    found = remember(memory, jnp.array([2, 0, 2]), g, momentum=0.0)
    assert found.tolist() == [[0, 1], [0, 0], [1, 0], [0, 0]]


def test_negatives_are_of_other_classes_each_once_and_all_alike():
    known = jnp.arange(40) % 4
    label, index = jnp.array([0, 1, 2]), jnp.array([4, 7, 10])  # 7 was seen with label 3: changed
    draw = jit(jax.vmap(lambda key: draw_negatives(key, known, label, index, 20)))
    chosen = np.asarray(draw(jax.random.split(KEY, 2000)))  # [draws, R, N]
    assert set(np.unique(chosen)) == {0, 1} and (chosen.sum(-1) == 20).all()
    often = chosen.mean(0)
    for row in range(3):
        own = (np.asarray(known) == label[row]) | (np.arange(40) == index[row])
        assert not often[row][own].any()
        np.testing.assert_allclose(often[row][~own], 20 / np.sum(~own), atol=0.06)


def test_where_other_classes_are_few_each_counts_more():
    known = jnp.array([0, 0, 0, 0, 0, 1, 2, 0])
    chosen = draw_negatives(KEY, known, jnp.array([0, 1]), jnp.array([0, 5]), 6)
    assert chosen[0].tolist() == [0, 0, 0, 0, 0, 3, 3, 0]
    assert float(chosen[1].sum()) == 6 and chosen[1, 5] == 0


def test_an_image_that_has_not_come_yet_may_be_drawn():
    known = jnp.array([0, -1, 1, 0])
    chosen = draw_negatives(KEY, known, jnp.array([0]), jnp.array([1]), 3)
    assert chosen.tolist() == [[0, 0, 3, 0]]  # its own place never
    assert draw_negatives(KEY, known, jnp.array([0]), jnp.array([0]), 2).tolist() == [[0, 1, 1, 0]]


def test_both_embeddings_learn_and_the_memory_does_not(begun):
    g = jnp.asarray(np.eye(4, dtype=np.float32)[:2])
    memory = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))
    chosen = jnp.asarray([[0, 0, 1, 1, 1], [1, 0, 0, 1, 1]], jnp.float32)

    def worth(g, memory, z):
        return contrast_rows(g, memory, jnp.array([0, 1]), chosen, 3, z, 0.5)[0].sum()

    of = jit(jax.grad(worth, argnums=(0, 1)))
    for z in (0.0, 7.0):
        pull = of(g, memory, jnp.float32(z))
        assert pull[0].all() and not pull[1].any()
    term, params, state = begun
    assert {side: params[side]["kernel"].shape for side in params} == {
        "student": (7, 4), "teacher": (9, 4)}
    pull = jit(jax.grad(lambda params: term.apply(params, state, scene(), KEY)[0]))(params)
    assert all(leaf.any() for leaf in jax.tree.leaves(pull))


@pytest.mark.parametrize("options, words", [
    ({"images": 100, "negatives": 100}, r"negatives of crd: expected 1 to 99"),
    ({"images": 100}, r"1 to 99 .*got 16384"),
    ({"images": 100, "negatives": 9, "tau": 0.0}, "positive temperature"),
    ({"images": 100, "negatives": 9, "momentum": 1.0}, "momentum of crd"),
])
def test_numbers_out_of_range_are_refused(options, words):
    with pytest.raises(check.ConfigError, match=words):
        losses.crd(**options)

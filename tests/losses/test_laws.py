"""What holds of every term: all kinds that a config may name, and laws over them.

A new row of `parts.TERMS` is under them by itself, with its defaults.
"""

from dataclasses import replace
import functools
import json

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import pytest

from augjax import builders, check, defaults, losses, parts, train
from augjax.types import Outputs, Signals, View
from losses import scene as scenes
from losses.scene import at_work, changed, drawn, IMAGES, jit, KEY, ROWS, signals_of, traced

TALL = {"taps": ("f1", "f2"), "teacher_taps": ("f1", "f2")}  # the first has places to spare
WIDE = {"taps": ("f2", "f3"), "teacher_taps": ("f2", "f3")}  # more channels, or as many
BRANCHES = (View("weak"), View("strong"))
GIVEN = {  # what has no default, fits the scene, or says more of a kind
    "cross_entropy": {"label_smoothing": 0.1},
    "binary_cross_entropy": {"label_smoothing": 0.1},
    "topk_kl": {"k": 3},
    "kd_svd": WIDE,
    "mhgd": TALL,
    "ii_kd": WIDE,
    "crd": {"images": IMAGES, "negatives": 9, "width": 4},
}
TERMS = {kind: build(**GIVEN.get(kind, {})) for kind, build in parts.TERMS.items()} | {
    "hinton, ce": losses.hinton(form="ce", tau=1.0),  # and every form computed another way
    "hinton, two teachers": losses.hinton(teacher=("teacher", "wide")),
    "hinton, their probabilities": losses.hinton(teacher=("teacher", "wide"), mean="probabilities"),
    "topk_kl, renormalised": losses.topk_kl(3, renormalise=True),
    "mutual, both ways": losses.mutual(form="both_ways", tau=2.0),
    "rkd, role_kd": losses.rkd(50.0, 100.0, "logits", "logits", "role_kd"),
    "hint, plain": losses.hint(regressor=False),
    "kd_svd, student projected": losses.kd_svd(
        **TALL, vectors=2, reduction="mean", teacher="wide", project="student"),
    "kd_svd, teacher projected": losses.kd_svd(**TALL, teacher="wide", project="teacher"),
    "mhgd, pre-training": losses.mhgd(**WIDE, pretrain_steps=3),
    "adaptive_ensemble, a number": losses.adaptive_ensemble(logit_scale="3.0"),
    "adaptive_ensemble, as they are": losses.adaptive_ensemble(logit_scale="none"),
}
OF_LOGITS = [name for name in TERMS if name.startswith(("hinton", "topk", "dkd", "mutual"))]
OF_PAIRS = ["rkd", "rkd, role_kd", "similarity", "mhgd", "ii_kd"]
OF_MAPS = ["similarity", "attention", "hint", "hint, plain", "ii_kd", *(
    name for name in TERMS if name.startswith(("kd_svd", "mhgd")))]
OF_BRANCHES = [name for name in TERMS if name.startswith("adaptive_ensemble")]
UNFELT = ["teacher_disagreement", "mhgd, pre-training"]  # by the student
ALL = pytest.mark.parametrize("name", TERMS)


def scene(count=ROWS, **drawn):
    """The scene, in which an even number of rows are two branches of every image."""
    signals = scenes.scene(count, **drawn)
    views = signals.rows.views if count % 2 else BRANCHES
    return replace(signals, rows=replace(signals.rows, views=views))


@functools.cache
def begun(name):
    """(params, state) of a term that has seen the scene."""
    return at_work(TERMS[name], scene())


@functools.cache
def compiled(name):
    """(params, state, rows, outputs) -> (value, gradient of the parameters and the outputs)."""

    def of(params, outputs, state, rows):
        return TERMS[name].apply(params, state, Signals(rows, outputs), KEY)[0]

    return jit(jax.value_and_grad(of, argnums=(0, 1)))


def gradients(name, signals):
    """(value, gradient of the parameters and of all that any network says)."""
    params, state = begun(name)
    return compiled(name)(params, signals.outputs, state, signals.rows)


def finite(tree):
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", [name for name in TERMS if name not in OF_BRANCHES])
def test_the_gradient_is_that_of_finite_differences(name):
    """float64, along one drawn direction through all that the student says and all parameters.

    Not of branches, one part of which moves the parameters alone and the other the logits alone:
    `test_the_detach_table`.
    """
    with jax.enable_x64(True):
        signals = scene(dtype=jnp.float64)
        term = TERMS[name]
        params, state = begun(name)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        start = (params, signals.outputs["student"])
        draw = np.random.default_rng(5)
        way = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape), start)

        def along(length):
            params, said = jax.tree.map(lambda leaf, step: leaf + length * step, start, way)
            seen = replace(signals, outputs={**signals.outputs, "student": said})
            return term.apply(params, state, seen, KEY)[0]

        step = 1e-5
        worth, slope = jit(jax.vmap(jax.value_and_grad(along)))(np.array([-step, 0, step]))
        assert (abs(slope[1]) > 1e-4) != (name == "teacher_disagreement")
        assert float(slope[1]) == pytest.approx(float((worth[2] - worth[0]) / (2 * step)), rel=1e-6)


@ALL
def test_no_gradient_reaches_who_teaches(name):
    _, (_, given) = gradients(name, scene())
    for net in {"teacher", "wide", "peer"}:
        assert not any(leaf.any() for leaf in jax.tree.leaves(given[net])), net
    assert any(leaf.any() for leaf in jax.tree.leaves(given["student"])) != (name in UNFELT)


@ALL
def test_the_order_of_rows_does_not_matter(name):
    signals, each = scene(), len(BRANCHES) if name in OF_BRANCHES else 1  # rows that move together
    order = np.random.default_rng(1).permutation(np.arange(ROWS).reshape(-1, each)).ravel()
    params, state = begun(name)
    if name == "mhgd, pre-training":  # which draws noise for every row until then
        state = {**state, "updates": jnp.int32(4)}
    permuted = jax.tree.map(lambda leaf: leaf[order], signals)
    found, expected = (compiled(name)(params, seen.outputs, state, seen.rows)[0]
                       for seen in (permuted, signals))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@ALL
def test_half_precision_is_computed_in_float32(name):
    half = jax.eval_shape(lambda: scene(dtype=jnp.bfloat16))
    term = TERMS[name]
    params, state = jax.eval_shape(term.init, KEY, half)
    program = jax.make_jaxpr(lambda *given: term.apply(*given, KEY)[0])(params, state, half)
    assert [(value.shape, value.dtype) for value in program.out_avals] == [((), jnp.float32)]
    used = {name for name, kinds in operations(program.jaxpr) if np.dtype("bfloat16") in kinds}
    assert used and used <= {"convert_element_type", "reshape", "stop_gradient"}


def operations(program):
    """(name, types of what goes in) of every operation of a traced program."""
    for operation in program.eqns:
        inner = [leaf.jaxpr for leaf in jax.tree.leaves(
            operation.params, is_leaf=lambda x: hasattr(x, "jaxpr")) if hasattr(leaf, "jaxpr")]
        for part in inner:
            yield from operations(part)
        if not inner:
            yield operation.primitive.name, {getattr(v.aval, "dtype", None)
                                             for v in operation.invars}


@pytest.mark.parametrize("name", OF_LOGITS)
def test_equal_logits_cost_nothing_and_pull_nowhere(name):
    """But the cross-entropy form has the teacher's entropy, the truncated one another minimum."""
    z = drawn(1).logits
    signals = signals_of(**dict.fromkeys(("student", "teacher", "wide", "peer"), z))
    worth, (_, given) = gradients(name, signals)
    pull = given["student"].logits
    if name == "topk_kl":  # spec D2: p_j m - p_j 1[j in C_K]
        p = jax.nn.softmax(z)
        inside = p >= jnp.sort(p)[:, -3:-2]
        expected = p * jnp.sum(p * inside, -1, keepdims=True) - p * inside
        np.testing.assert_allclose(pull, expected / ROWS, atol=1e-6)
    else:
        np.testing.assert_allclose(pull, 0, atol=1e-6)
    assert name == "hinton, ce" or float(worth) == pytest.approx(0, abs=1e-6)


def test_equal_features_cost_nothing_and_pull_nowhere():
    signals = scene()
    same = changed(signals, "teacher", **vars(signals.outputs["student"]))
    for name in (*OF_PAIRS, "attention", "hint, plain", "kd_svd"):
        worth, (_, given) = gradients(name, same)
        assert float(worth) == pytest.approx(0, abs=1e-5), name
        for leaf in jax.tree.leaves(given["student"]):
            np.testing.assert_allclose(leaf, 0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", [*parts.TERMS, "rkd, role_kd", "mhgd, pre-training"])
def test_a_batch_of_one_is_finite_and_has_no_pairs(name):
    if name in OF_BRANCHES:  # each with a BatchNorm set, which one image cannot fill
        with pytest.raises(check.ConfigError, match="images of .*2 or more, got 1"):
            traced(TERMS[name], scene(1))
        return
    worth, pulls = gradients(name, scene(1))
    assert jnp.isfinite(worth) and finite(pulls)
    if name in OF_PAIRS and name != "ii_kd":  # whose third part is of single rows
        assert float(worth) == 0.0
        assert not any(leaf.any() for leaf in jax.tree.leaves(pulls))


@ALL
@pytest.mark.parametrize("net", ["student", "teacher", "both"])
def test_nothing_to_see_is_no_nan(name, net):
    """Zero maps, features and logits, which are also rows all alike and equal singular values."""
    signals = scene()
    for one in ("student", "teacher", "wide", "peer"):
        if net == "both" or (one == "student") == (net == "student"):
            nothing = jax.tree.map(jnp.zeros_like, signals.outputs[one])
            signals = replace(signals, outputs={**signals.outputs, one: nothing})
    worth, pulls = gradients(name, signals)
    assert jnp.isfinite(worth) and finite(pulls)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(pulls))
    assert largest < 1e3  # no 1 / eps


@ALL
def test_large_numbers_are_no_nan(name):
    """And to what compares directions they mean the same."""
    signals = scene()
    large = jax.tree.map(lambda leaf: leaf * 1e8, signals.outputs)
    worth, pulls = gradients(name, replace(signals, outputs=large))
    assert jnp.isfinite(worth) and finite(pulls)
    if name in ("rkd", "rkd, role_kd", "similarity", "attention") or "svd" in name:
        assert float(worth) == pytest.approx(float(gradients(name, signals)[0]), rel=1e-3)


@ALL
def test_the_state_keeps_its_shapes_and_types(name):
    """So that a resumed run finds its memories and nothing compiles twice."""
    term, signals = TERMS[name], scene()
    params, state = jax.eval_shape(term.init, KEY, jax.eval_shape(lambda: signals))
    after = jax.eval_shape(term.apply, params, state, signals, KEY)[1]
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
             for tree in (state, after)]
    assert kinds[0] == kinds[1]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((params, state, after)))


@ALL
def test_a_silent_network_is_refused_and_those_that_speak_are_named(name):
    signals = scene()
    alone = replace(signals, outputs={"onlooker": signals.outputs["student"]})
    with pytest.raises(check.ConfigError, match="expected one of 'onlooker', got '"):
        traced(TERMS[name], alone)


@pytest.mark.parametrize("name", OF_LOGITS)
def test_other_classes_are_refused(name):
    signals = scene()
    for net in ("teacher", "peer"):
        fewer = Outputs(signals.outputs[net].logits[:, :4])
        signals = replace(signals, outputs={**signals.outputs, net: fewer})
    with pytest.raises(check.ConfigError, match=r"logits of student and .*\(6, 4\).*\(6, 5\)"):
        traced(TERMS[name], signals)


@pytest.mark.parametrize("name", OF_MAPS)
def test_a_tap_that_does_not_exist_is_refused_and_those_that_do_are_named(name):
    signals = scene()
    fewer = {tap: f for tap, f in signals.outputs["student"].features.items() if tap == "f1"}
    bare = changed(signals, features=fewer)
    with pytest.raises(check.ConfigError, match="tap of 'student' in .*: expected one of 'f1', "
                       "'logits', 'pooled', got 'f[23]'"):
        traced(TERMS[name], bare)


@pytest.mark.parametrize("name", ["kd_svd", "mhgd"])
def test_channels_that_differ_want_a_projector(name):
    signals = scene()
    other = replace(signals, outputs={**signals.outputs, "teacher": signals.outputs["wide"]})
    with pytest.raises(check.ConfigError, match="channels of tap 'f[12]' in .*the teacher's"):
        traced(TERMS[name], other)


@pytest.mark.parametrize("build", [losses.attention, losses.kd_svd, losses.mhgd, losses.ii_kd])
def test_taps_come_in_pairs_and_are_maps(build):
    for taps, others, words in (
        (("f1", "f2"), ("f1",), "expected 2, one for each"),
        (("f1", "f1"), ("f1", "f2"), "each once"),
        (("f1", "logits"), ("f1", "f2"), "'logits' in .*: expected a map"),
    ):
        with pytest.raises(check.ConfigError, match=words):
            traced(build(taps=taps, teacher_taps=others), scene())


@pytest.mark.parametrize("build", [losses.kd_svd, losses.mhgd])
def test_relations_between_maps_need_two(build):
    with pytest.raises(check.ConfigError, match="at least 2"):
        traced(build(taps=("f1",), teacher_taps=("f1",)), scene())


@pytest.mark.parametrize("kind", parts.TERMS)
def test_every_kind_is_named_by_a_config_that_survives_json(kind):
    """Its options are fields; the lists of a run folder's config are tuples again."""
    lists = {"hinton": {"teacher": ("teacher", "peer")}, "attention": TALL}
    views, where = tuple(view.name for view in BRANCHES), "student.terms.one"
    block = defaults.term(kind, 0.5, views, **GIVEN.get(kind, {}), **lists.get(kind, {}))
    term = builders.build_term(where, ConfigDict(json.loads(block.to_json())), views)
    assert traced(term, scene()).shape == ()
    with pytest.raises(check.ConfigError, match="field of student.terms.one: .*got 'tapps'"):
        builders.build_term(where, ConfigDict({**block.to_dict(), "tapps": 1}), views)


def test_what_a_term_promises_of_its_rows_holds():
    """per_example: the mean over the rows' parts is the value of the whole."""
    for name, term in TERMS.items():
        if not term.per_example:
            continue
        count, rows = (8, 4) if name in OF_BRANCHES else (ROWS, 2)  # of a part: two images at least
        (params, state), signals = begun(name), scene(count)
        cut = jax.tree.map(lambda leaf: leaf.reshape(-1, rows, *leaf.shape[1:]), signals)
        parts = jit(jax.vmap(lambda part: term.apply(params, state, part, KEY)[0]))(cut)
        whole, _ = gradients(name, signals)
        assert np.mean(parts) == pytest.approx(float(whole), rel=1e-5), name
    assert {name for name, term in TERMS.items() if not term.per_example} == {
        *OF_PAIRS, "hint", "kd_svd", "kd_svd, teacher projected", "mhgd, pre-training", "crd",
        "adaptive_ensemble"}


def test_eight_devices_see_what_one_sees():
    """What sorts, pairs, normalises or remembers rows: value, gradient, next state, at once."""
    names = ("topk_kl", "rkd", "hint", "crd")
    signals = scene(8)
    params, state = ({name: begun(name)[place] for name in names} for place in (0, 1))

    @jit
    def worth(params, signals):
        def total(params, outputs):
            seen = replace(signals, outputs=outputs)
            found = {name: TERMS[name].apply(params[name], state[name], seen, KEY)
                     for name in names}
            return sum(value for value, _ in found.values()), found

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(params, signals.outputs)

    cut = train.sharding.over_data(train.sharding.make_mesh())
    (_, alone), pull = worth(params, signals)
    (_, apart), pull_apart = worth(params, jax.device_put(signals, cut))
    for name in names:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
                     apart[name], alone[name])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), pull_apart,
                 pull)

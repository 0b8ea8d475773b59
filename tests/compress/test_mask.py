"""Masks: what may be pruned, PyTorch's counts, and the laws of sparsity."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, tree
from augjax.compress import mask, nonzero, prunable, prune_l1, sparsity


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture
def params():
    student = {
        "head": {"kernel": normal(0, 8, 10), "bias": normal(1, 10)},
        "stem": {"kernel": normal(2, 3, 3, 1, 8)},
        "stem_norm": {"scale": normal(3, 2, 8), "bias": normal(4, 2, 8)},
        "deep": {"conv": {"kernel": normal(5, 1, 1, 8, 6)}},
    }  # prunable: 80 + 72 + 48 = 200 weights
    return {"student": student, "teacher": {"head": {"kernel": normal(6, 4, 4)}}}


def one(values):
    return {"student": {"layer": {"kernel": jnp.asarray(values, jnp.float32).reshape(1, -1)}}}


def pruned(masks):
    return sum(value.size - int(value.sum()) for value in masks.values())


def fresh(params):
    return mask().init(params)


def same(a, b):
    assert a.keys() == b.keys()
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_only_kernels_of_the_named_networks_are_masked(params):
    assert sorted(fresh(params)) == [
        "student/deep/conv/kernel", "student/head/kernel", "student/stem/kernel"
    ]
    assert sorted(prunable(params, ("teacher",))) == ["teacher/head/kernel"]
    assert not any(value.weak_type for value in fresh(params).values())


def test_fresh_masks_are_the_identity(params):
    transform = mask()
    masks = transform.init(params)
    assert all(value.dtype == bool for value in masks.values())
    jax.tree.map(np.testing.assert_array_equal, transform.apply(params, masks), params)
    assert sparsity(masks)["total"] == 0.0
    same(prune_l1(params, masks, 0.0), masks)


def test_masked_weights_are_zero_and_get_no_gradient(params):
    transform = mask()
    masks = prune_l1(params, transform.init(params), 0.4)

    @jax.jit
    def loss(params, masks):
        shown = jax.tree.leaves(transform.apply(params, masks))
        return sum((leaf**2).sum() + leaf.sum() for leaf in shown)

    gradient = tree.flatten(jax.grad(loss)(params, masks))
    shown = tree.flatten(transform.apply(params, masks))
    for path, leaf in tree.flatten(params).items():
        kept = np.asarray(masks.get(path, np.ones(leaf.shape, bool)))
        np.testing.assert_array_equal(shown[path], np.where(kept, leaf, 0))
        np.testing.assert_allclose(gradient[path], np.where(kept, 2 * leaf + 1, 0), rtol=1e-6)
        assert shown[path].dtype == leaf.dtype


def test_a_new_mask_compiles_nothing(params):
    transform = mask()
    apply = jax.jit(transform.apply)
    masks = transform.init(params)
    apply(params, masks)
    apply(params, prune_l1(params, masks, 0.3))
    assert apply._cache_size() == 1


def test_200_weights_in_three_steps(params):  # spec C2 and C8
    masks, seen = fresh(params), []
    for target in (0.2, 0.4, 0.6):
        masks = prune_l1(params, masks, target)
        seen.append(pruned(masks))
    assert seen == [40, 80, 120]
    same(masks, prune_l1(params, fresh(params), 0.6))  # repeated equals direct
    same(masks, prune_l1(params, masks, 0.6))  # idempotent
    assert sparsity(masks)["total"] == 0.6


def test_masks_are_nested_and_hide_the_smallest(params):
    few, many = (prune_l1(params, fresh(params), target) for target in (0.2, 0.6))
    weights = tree.flatten(params)
    for path in few:
        assert not np.any(np.asarray(many[path]) & ~np.asarray(few[path]))
    kept = np.concatenate([np.abs(weights[path])[np.asarray(many[path])] for path in many])
    gone = np.concatenate([np.abs(weights[path])[~np.asarray(many[path])] for path in many])
    assert gone.max() <= kept.min()


def test_what_is_pruned_stays_pruned_though_the_weights_have_moved():
    masks = prune_l1(one([1, 2, 3, 4]), fresh(one([1, 2, 3, 4])), 0.25)
    masks = prune_l1(one([9, 2, 3, 0]), masks, 0.5)
    np.testing.assert_array_equal(masks["student/layer/kernel"], [[False, True, True, False]])


@pytest.mark.parametrize("share, size, count", [(0.5, 5, 2), (0.5, 7, 4), (0.1, 4, 0), (0.9, 9, 8)])
def test_counts_round_half_to_even(share, size, count):  # spec C2: 2.5 -> 2, 3.5 -> 4
    params = one(np.arange(1, size + 1))
    assert pruned(prune_l1(params, fresh(params), share)) == count


def test_ties_go_to_the_lower_index():
    for values, expected in (
        ([1, 1, 1, 1], [0, 0, 1, 1]), ([3, 1, -1, 1, 2, 1], [1, 0, 0, 1, 1, 1])
    ):
        params = one(values)
        masks = prune_l1(params, fresh(params), 2 / len(values))
        np.testing.assert_array_equal(masks["student/layer/kernel"][0], np.array(expected, bool))


def test_zero_weights_go_first_and_a_layer_may_become_empty_where_permitted():
    params = {"student": {"a": {"kernel": normal(0, 4, 5)}, "b": {"kernel": jnp.zeros((2, 5))}}}
    with pytest.raises(check.ConfigError, match="none in student/b/kernel at .*empty_layers=True"):
        prune_l1(params, fresh(params), 1 / 3)
    masks = prune_l1(params, fresh(params), 1 / 3, empty_layers=True)
    assert sparsity(masks) == {
        "total": pytest.approx(1 / 3), "student/a/kernel": 0.0, "student/b/kernel": 1.0
    }
    prune_l1(params, masks, 1 / 2)  # what is empty was permitted


@pytest.mark.parametrize("scope", ["global", "per_layer"])
def test_a_network_is_never_left_without_weights(scope):
    params = one([1, 2, 3, 4])
    for permitted in (True, False):
        with pytest.raises(check.ConfigError, match="weights that are left, got none at sparsity"):
            prune_l1(params, fresh(params), 0.9, scope, permitted)


def test_per_layer_reaches_the_sparsity_in_every_layer(params):
    masks = prune_l1(params, fresh(params), 0.5, scope="per_layer")
    assert set(sparsity(masks).values()) == {0.5}
    assert len(set(sparsity(prune_l1(params, fresh(params), 0.5)).values())) > 1
    with pytest.raises(check.ConfigError, match="student/deep/conv/kernel"):
        prune_l1(params, masks, 0.4, scope="per_layer")


def test_what_is_left_is_counted(params):
    masks = prune_l1(params, fresh(params), 0.4)
    student = {"student": params["student"]}
    assert nonzero(student, fresh(params)) == 200 + 10 + 32
    assert nonzero(student, masks) == 120 + 10 + 32


def test_pruning_leaves_its_arguments_alone(params):
    masks = fresh(params)
    before = jax.tree.map(np.array, (params, masks))
    prune_l1(params, masks, 0.5)
    jax.tree.map(np.testing.assert_array_equal, before, (params, masks))


def test_what_is_wrong_is_refused(params):
    masks = prune_l1(params, fresh(params), 0.4)
    with pytest.raises(check.ConfigError,
                       match="sparsity of all layers: .* at least the present 0.4, got 0.3"):
        prune_l1(params, masks, 0.3)
    for wrong in (-0.1, 1.0):
        with pytest.raises(check.ConfigError, match=r"\[0, 1\)"):
            prune_l1(params, masks, wrong)
    with pytest.raises(check.ConfigError, match="'global', 'per_layer'"):
        prune_l1(params, masks, 0.5, scope="layer")
    with pytest.raises(check.ConfigError, match="'student', 'teacher', got 'studnet'"):
        mask(("studnet",)).init(params)
    with pytest.raises(check.ConfigError, match="prunable weights of 'student'"):
        mask().init({"student": {"norm": {"scale": jnp.ones((1, 3))}}})
    with pytest.raises(check.ConfigError, match="shape"):
        mask().apply({"student": {"layer": {"kernel": jnp.ones((2, 2))}}}, fresh(one([1, 2])))
    with pytest.raises(check.ConfigError, match="student/layer/kernel"):
        mask().apply({"student": {}}, fresh(one([1, 2])))


def test_25_million_weights_take_seconds_not_minutes():
    leaves = {f"l{i}": {"kernel": normal(i, 512, 4883)} for i in range(10)}
    params = {"student": leaves}
    masks = fresh(params)
    start = time.perf_counter()
    masks = prune_l1(params, masks, 0.6)
    assert time.perf_counter() - start < 20  # about 1 s alone; the bound allows for a busy machine
    assert sparsity(masks)["total"] == pytest.approx(0.6, abs=1e-7)


@pytest.mark.parity
@pytest.mark.parametrize("scope", ["global", "per_layer"])
def test_pytorch_agrees_also_when_repeated(params, scope):
    import torch
    from torch.nn.utils import prune

    masks = fresh(params)
    weights = tree.flatten(params)
    modules = {}
    for path in sorted(masks):
        modules[path] = torch.nn.Module()
        modules[path].weight = torch.nn.Parameter(torch.tensor(np.asarray(weights[path])))

    def amount(target, *pruned):  # spec C2, from the ratio that is really there
        gone = [float((module.weight_mask == 0).sum()) for module in pruned if present]
        present_ratio = sum(gone) / sum(module.weight.numel() for module in pruned)
        return (target - present_ratio) / (1 - present_ratio)

    present = False
    for target in (0.2, 0.4, 0.6, 0.75):
        masks = prune_l1(params, masks, target, scope, empty_layers=True)
        if scope == "global":
            prune.global_unstructured(
                [(module, "weight") for module in modules.values()], prune.L1Unstructured,
                amount=amount(target, *modules.values()),
            )
        else:
            for module in modules.values():
                prune.l1_unstructured(module, "weight", amount=amount(target, module))
        present = True
        for path, module in modules.items():
            np.testing.assert_array_equal(masks[path], module.weight_mask.numpy().astype(bool))

"""DoReFa: the paper's numbers, its gradients, and how it goes with masks."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import pytest

from augjax import check, tree
from augjax.compress import dorefa, mask, prune_l1, quantise_activations, set_bits, within_mask
from augjax.models import FULL_PRECISION
from augjax.types import chain

QUANTISED = ("student/block/conv/kernel", "student/fc/kernel")


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


PARAMS = {
    "student": {
        "stem": {"kernel": normal(0, 3, 3, 1, 4)},
        "block": {"conv": {"kernel": normal(1, 3, 3, 4, 6)},
                  "norm": {"scale": normal(2, 1, 6), "bias": normal(3, 1, 6)}},
        "fc": {"kernel": 0.8 * normal(4, 24, 8), "bias": normal(5, 8)},
        "head": {"kernel": normal(6, 8, 5), "bias": normal(7, 5)},
    },
    "teacher": {"stem": {"kernel": normal(8, 2, 2)}, "fc": {"kernel": normal(9, 4, 4)}},
}
UPSTREAM = jax.tree.map(lambda leaf: normal(leaf.size, *leaf.shape), PARAMS)  # a loss's gradient
DOREFA = dorefa(FULL_PRECISION)
BITS = DOREFA.init(PARAMS)
MASKED = within_mask(FULL_PRECISION)
FC = dorefa(())  # all layers
FC_SHOWN = jax.jit(FC.apply)


def pulled(transform):
    """(weights that the network sees, gradient of the latent ones), compiled once."""

    @jax.jit
    def both(params, state, upstream):
        seen, pull = jax.vjp(lambda params: transform.apply(params, state), params)
        return seen, pull(upstream)[0]

    return both


SHOWN, MASKED_SHOWN = pulled(DOREFA), pulled(MASKED)


def shown(bits, params=PARAMS):
    """({path: weight seen}, {path: gradient}) at so many bits."""
    return tuple(map(tree.flatten, SHOWN(params, set_bits(BITS, bits), UPSTREAM)))


def quantised(w, bits):
    """Spec C6 in float64, and the share of a step by which it is away from rounding otherwise."""
    w = np.asarray(w, np.float64)
    if bits == 1:
        return np.where(w >= 0, 1, -1) * np.abs(w).mean(), 1
    steps, t = 2**bits - 1, np.tanh(w)
    at = steps * (t / (2 * np.abs(t).max()) + 0.5)
    return 2 * np.round(at) / steps - 1, np.abs(at - np.floor(at) - 0.5).min()


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# --- weights -------------------------------------------------------------------------------------


def test_weights_of_spec_c8():
    layer = {"student": {"fc": {"kernel": jnp.float32([[-1.5, -0.6, -0.2, 0, 0.1, 0.45, 0.9, 2]])}}}
    expected = {
        2: np.float32([-3, -1, -1, 1, 1, 1, 3, 3]) / 3,
        4: [-1, -0.6, -0.2, 0.066667, 0.066667, 0.466667, 0.733333, 1],
        1: np.float32([-1, -1, -1, 1, 1, 1, 1, 1]) * 5.75 / 8,
    }
    for bits, values in expected.items():
        seen = FC_SHOWN(layer, set_bits(FC.init(layer), bits))
        np.testing.assert_allclose(seen["student"]["fc"]["kernel"][0], values, atol=2e-6)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 16])
def test_weights_are_those_of_the_formula_layer_by_layer(bits):
    seen, _ = shown(bits)
    for path in QUANTISED:
        weight, got = tree.flatten(PARAMS)[path], np.asarray(seen[path])
        expected, margin = quantised(weight, bits)
        # float32 may round a weight between two levels to the other one of many
        assert margin > 1e-4 or bits == 16
        np.testing.assert_allclose(got, expected, atol=2e-6 if bits < 16 else 2.1 / 2**16)
        assert len(np.unique(got)) <= 2**bits
        if bits == 1:
            assert len(np.unique(np.abs(got))) == 1
        else:
            assert np.abs(got).max() == 1 and got.flat[np.abs(weight).argmax()] in (-1, 1)
            assert (got != 0).all()  # no level there, which is why masks come last


def test_exempt_layers_biases_norms_and_other_networks_are_untouched():
    seen, gradient = shown(2)
    changed = {path for path, leaf in tree.flatten(PARAMS).items()
               if not np.array_equal(seen[path], leaf)}
    assert changed == set(QUANTISED)
    for path, upstream in tree.flatten(UPSTREAM).items():
        assert path in QUANTISED or np.array_equal(gradient[path], upstream)
    both = dorefa(("stem/*",), ("student", "teacher"))
    more = tree.flatten(jax.jit(both.apply)(PARAMS, set_bits(both.init(PARAMS), 1)))
    assert len(np.unique(np.abs(more["teacher/fc/kernel"]))) == 1
    assert len(np.unique(np.abs(more["student/head/kernel"]))) == 1
    same(more["teacher/stem/kernel"], PARAMS["teacher"]["stem"]["kernel"])


def test_32_bits_are_the_identity_also_for_gradients():
    seen, gradient = SHOWN(PARAMS, BITS, UPSTREAM)
    same((seen, gradient), (PARAMS, UPSTREAM))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gradients_are_straight_through(bits):
    """Spec C6: round passes on, max|tanh| is differentiated; 1 bit passes all on."""
    _, gradient = shown(bits)
    for path in QUANTISED:
        w, g = (np.asarray(tree.flatten(part)[path], np.float64) for part in (PARAMS, UPSTREAM))
        if bits == 1:
            expected = g
        else:
            t = np.tanh(w)
            largest, top = np.abs(t).max(), np.abs(t).argmax()
            expected = g * (1 - t**2) / largest
            expected.flat[top] -= (g * t).sum() / largest**2 * np.sign(t.flat[top]) * (
                1 - t.flat[top] ** 2)
        np.testing.assert_allclose(gradient[path], expected, rtol=1e-4, atol=1e-5)


def test_a_layer_of_zeros_stays_zero_and_may_leave():
    params = {**PARAMS, "student": {**PARAMS["student"], "fc": {
        "kernel": jnp.zeros((24, 8)), "bias": jnp.zeros(8)}}}
    for bits in (1, 2, 32):
        seen, gradient = shown(bits, params)
        assert not np.any(seen["student/fc/kernel"])
        same(gradient["student/fc/kernel"], UPSTREAM["student"]["fc"]["kernel"])


def test_bfloat16_weights_stay_bfloat16():
    layer = {"student": {"fc": {"kernel": normal(1, 24, 8).astype(jnp.bfloat16)}}}
    weight = layer["student"]["fc"]["kernel"]
    for bits, expected in ((2, quantised(weight, 2)[0]), (32, np.float64(weight))):
        seen = FC_SHOWN(layer, set_bits(BITS, bits))["student"]["fc"]["kernel"]
        assert seen.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float64(seen), expected, rtol=2**-8 if bits == 2 else 0)


def test_bits_and_weights_are_data_of_one_program():
    before = SHOWN._cache_size()
    for bits in (2, 4, 32):
        shown(bits)
        shown(bits, jax.tree.map(lambda leaf: 1.5 * leaf, PARAMS))
    assert SHOWN._cache_size() == max(before, 1)
    state = set_bits(BITS, 4)
    assert state["bits"].dtype == jnp.int32 and not state["bits"].weak_type


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_compiled_members_and_shards_see_equal_bits(bits):
    """Without jit, with it, in a population, and with kernels that lie on 8 devices."""
    layer = {"student": {"fc": PARAMS["student"]["fc"]}}
    eager = FC.apply(layer, set_bits(BITS, bits))["student"]["fc"]["kernel"]
    _, member = MEMBERS(layer, {"bits": jnp.int32([32, bits])})
    spread = FC_SHOWN(jax.device_put(layer, OVER_DATA), set_bits(BITS, bits))
    assert not spread["student"]["fc"]["kernel"].sharding.is_fully_replicated
    for other in (shown(bits)[0]["student/fc/kernel"], member, spread["student"]["fc"]["kernel"]):
        if bits == 1:  # a mean may be summed in another order
            np.testing.assert_allclose(other, eager, rtol=1e-6)
        else:
            same(np.asarray(other), np.asarray(eager))


OVER_DATA = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
MEMBERS = jax.jit(jax.vmap(
    lambda params, state: FC.apply(params, state)["student"]["fc"]["kernel"], in_axes=(None, 0)))


# --- with masks ----------------------------------------------------------------------------------


def masked_state(bits, sparsity=0.6, params=PARAMS):
    state = MASKED.init(params)
    masks = prune_l1(params, state["mask"], sparsity)
    return {"mask": masks, "dorefa": set_bits(state["dorefa"], bits)}


@pytest.mark.parametrize("bits", [1, 2, 4, 32])
def test_pruned_weights_are_zero_and_kept_ones_are_quantised_alone(bits):
    state = masked_state(bits)
    seen, gradient = map(tree.flatten, MASKED_SHOWN(PARAMS, state, UPSTREAM))
    for path in QUANTISED:
        kept = np.asarray(state["mask"][path])
        own = np.asarray(tree.flatten(PARAMS)[path])[kept]
        assert 0 < own.size < kept.size
        assert not np.any(seen[path][~kept]) and not np.any(gradient[path][~kept])
        expected = own if bits == 32 else quantised(own, bits)[0]
        np.testing.assert_allclose(seen[path][kept], expected, atol=2e-6)
        assert np.all(np.asarray(gradient[path])[kept] != 0)


def test_the_mean_of_one_bit_is_over_the_weights_that_are_kept():
    """Those that happen to be 0 included, as spec C6 has it of a whole tensor."""
    layer = {"student": {"fc": {"kernel": jnp.float32([[-1.5, -0.6, -0.2, 0, 0.1, 0.45, 0.9, 2]])}}}
    kept = np.array([[True, True, False, True, False, True, True, True]])
    pair = within_mask(())
    state = {**pair.init(layer), "dorefa": set_bits(BITS, 1)}
    state["mask"] = {"student/fc/kernel": jnp.asarray(kept)}
    seen = jax.jit(pair.apply)(layer, state)["student"]["fc"]["kernel"]
    signs = np.float32([-1, -1, 0, 1, 0, 1, 1, 1])
    np.testing.assert_allclose(seen[0], signs * 5.45 / 6, atol=2e-6)
    state["mask"] = {"student/fc/kernel": jnp.zeros((1, 8), bool)}
    assert not np.any(jax.jit(pair.apply)(layer, state)["student"]["fc"]["kernel"])


@pytest.mark.parametrize("bits", [1, 4])
def test_what_lies_under_a_mask_is_never_seen(bits):
    """Not even by the maximum and the mean, which a quantiser before one mask would show."""
    state = masked_state(bits)

    def disturbed(path, leaf):
        kept, leaf = state["mask"].get(path, True), np.asarray(leaf)
        return jnp.asarray(np.where(kept, leaf, 7 - 100 * leaf))

    other = tree.map_with_path(disturbed, PARAMS)
    same(MASKED_SHOWN(PARAMS, state, UPSTREAM), MASKED_SHOWN(other, state, UPSTREAM))


def test_empty_masks_and_32_bits_are_identities_of_the_pair():
    fresh = MASKED.init(PARAMS)
    same(MASKED_SHOWN(PARAMS, fresh, UPSTREAM), (PARAMS, UPSTREAM))
    dense = {**fresh, "dorefa": set_bits(BITS, 4)}
    same(MASKED_SHOWN(PARAMS, dense, UPSTREAM)[0], SHOWN(PARAMS, dense["dorefa"], UPSTREAM)[0])
    pruned = masked_state(32)
    same(MASKED_SHOWN(PARAMS, pruned, UPSTREAM)[0], mask().apply(PARAMS, pruned["mask"]))
    in_a_row = chain(mask=mask(), dorefa=DOREFA).init(PARAMS)
    assert jax.tree.structure(in_a_row) == jax.tree.structure(fresh)


# --- activations ---------------------------------------------------------------------------------


def test_activations_of_spec_c8():
    read = jnp.float32([-0.3, 0, 0.1, 0.1666, 0.17, 0.5, 0.83, 0.9, 1.7])
    two, four = (jax.jit(quantise_activations(bits))(read) for bits in (2, 4))
    np.testing.assert_allclose(two, np.float32([0, 0, 0, 0, 1, 2, 2, 3, 3]) / 3, atol=1e-7)
    np.testing.assert_allclose(
        four, [0, 0, 0.133333, 0.133333, 0.2, 0.533333, 0.8, 0.933333, 1], atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("bits", [1, 2, 6, 8, 32])
def test_activations_lie_on_a_grid(bits, dtype):
    hook = jax.jit(quantise_activations(bits))
    read = (0.7 * normal(1, 4096)).astype(dtype)
    levels = hook(read)
    assert levels.dtype == dtype
    same(hook(levels), levels)  # a level is its own level
    if bits == 32:
        same(levels, read)
        return
    count = len(np.unique(levels))
    assert count == 2**bits if bits < 8 else 250 <= count <= 256
    assert levels.min() == 0 and levels.max() == 1
    steps, exact = 2**bits - 1, np.clip(np.float64(read), 0, 1)
    error = np.abs(np.float64(levels) - exact)
    assert error.max() <= 0.5 / steps + (1e-7 if dtype == jnp.float32 else 2**-9)
    if bits == 6:
        same(quantise_activations(bits)(read), levels)


def test_gradients_of_activations_are_those_of_the_closed_clip():
    read = jnp.float32([-0.3, 0, 0.2, 0.5, 1, 1.7])
    for bits, expected in ((2, [0, 1, 1, 1, 1, 0]), (32, [1] * 6)):
        hook = quantise_activations(bits)
        slope = jax.jit(jax.grad(lambda x: (hook(x) * jnp.arange(1.0, 7.0)).sum()))(read)
        same(slope, np.arange(1.0, 7.0) * expected)


# --- refusals and parity -------------------------------------------------------------------------


def test_what_is_wrong_is_refused():
    for bits in (0, 33, 2.5, "4", None):
        for build in (lambda: set_bits(BITS, bits), lambda: quantise_activations(bits)):
            with pytest.raises(check.ConfigError, match="a whole number from 1 to 32, got"):
                build()
    with pytest.raises(check.ConfigError, match="full_precision of 'student'.*got 'stm/[*]'"):
        dorefa(("stm/*", "head/*")).init(PARAMS)
    with pytest.raises(check.ConfigError, match="weights of 'student' to quantise"):
        dorefa(("*",)).init(PARAMS)
    with pytest.raises(check.ConfigError, match="got 'studnet'"):
        dorefa(FULL_PRECISION, ("studnet",)).init(PARAMS)


@pytest.mark.parity
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_pytorch_agrees_on_values_and_gradients(bits):
    import torch

    class Passing(torch.autograd.Function):
        """The first argument, with the gradient of the second."""

        @staticmethod
        def forward(context, seen, latent):
            return seen.clone()

        @staticmethod
        def backward(context, upstream):
            return None, upstream

    def q(r):
        steps = 2**bits - 1
        return Passing.apply(torch.round(r * steps) / steps, r)

    def weights(w):
        if bits == 1:
            size = w.detach().abs().mean()
            return Passing.apply(torch.where(w >= 0, size, -size), w)
        t = torch.tanh(w)
        return 2 * q(t / (2 * t.abs().max()) + 0.5) - 1

    def compare(function, latent, upstream, seen, gradient):
        theirs = torch.tensor(np.asarray(latent), requires_grad=True)
        out = function(theirs)
        out.backward(torch.tensor(np.asarray(upstream)))
        np.testing.assert_allclose(seen, out.detach().numpy(), atol=1e-6)
        np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-4, atol=1e-5)

    seen, gradient = shown(bits)
    for path in QUANTISED:
        compare(weights, tree.flatten(PARAMS)[path], tree.flatten(UPSTREAM)[path], seen[path],
                gradient[path])
    read = jnp.concatenate([normal(1, 500), jnp.float32([0, 0, 1, 1, 0.5])])
    levels, pull = jax.vjp(quantise_activations(bits), read)
    compare(lambda a: q(torch.clamp(a, 0, 1)), read, normal(2, 505), levels,
            pull(normal(2, 505))[0])

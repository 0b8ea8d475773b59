"""Optimisers whose learning rate is an argument, against optax's, PyTorch's and timm's own."""

import inspect
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from augjax import check, train
from augjax.train.optimizers import of_moving
from launch.torchvision_beside_torch import load

RATES = [0.1, 0.1, 0.03, 0.03, 0.01]
KERNEL, BIAS = [1.0, -2.0, 0.5], [0.3]


def start():
    return {"nets": {"kernel": jnp.array(KERNEL), "bias": jnp.array(BIAS)}}


def walk(optimizer, rates=RATES, extra=True):
    """Parameters after a few steps on a quadratic bowl."""
    params = start()
    state = optimizer.init(params)
    for rate in rates:
        grads = jax.tree.map(lambda w: 2 * w + 0.1, params)
        arguments = {"learning_rate": rate} if extra else {}
        updates, state = optimizer.update(grads, state, params, **arguments)
        params = optax.apply_updates(params, updates)
    return params["nets"]


def torch_walk(make, rates=RATES, before=lambda weights: None):
    """The same steps with an optimiser of PyTorch's kind; `before` may edit the gradients."""
    import torch

    weights = [torch.tensor(KERNEL, requires_grad=True), torch.tensor(BIAS, requires_grad=True)]
    theirs = make(weights, 0.1)
    for rate in rates:
        theirs.param_groups[0]["lr"] = rate
        for weight in weights:
            weight.grad = (2 * weight + 0.1).detach()
        before(weights)
        theirs.step()
    return [weight.detach().numpy() for weight in weights]


def assert_same(ours, theirs, atol=1e-5):  # float32 rounding
    np.testing.assert_allclose(ours["kernel"], theirs[0], atol=atol)
    np.testing.assert_allclose(ours["bias"], theirs[1], atol=atol)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_equals_optax_at_a_constant_rate(nesterov):
    theirs = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, 0.9, nesterov))
    ours = train.sgd(0.9, nesterov, weight_decay=0.01)
    jax.tree.map(np.testing.assert_allclose, walk(ours, [0.1] * 5), walk(theirs, [0.1] * 5, False))


def test_rmsprop_tf_by_hand():
    """ms from 1, epsilon inside the root, the rate inside the momentum (spec, end of M3)."""
    made = train.rmsprop_tf()
    params, expected = {"w": jnp.float32(2.0)}, 2.0
    state, mean_square, momentum = made.init(params), 1.0, 0.0
    for gradient, rate in [(3.0, 0.5), (-1.0, 0.5), (0.02, 0.1), (4.0, 0.0), (0.0, 0.3)]:
        updates, state = made.update({"w": jnp.float32(gradient)}, state, params,
                                     learning_rate=rate)
        params = optax.apply_updates(params, updates)
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        momentum = 0.9 * momentum + rate * gradient / math.sqrt(mean_square + 0.001)
        expected -= momentum
        assert float(params["w"]) == pytest.approx(expected, abs=1e-5)
    assert momentum > 0.1  # at rate 0 and gradient 0 it still moved


# --- what decays, what is clipped ----------------------------------------------------------------

LOSSY = (train.sgd, train.adam, train.rmsprop_tf)


@pytest.mark.parametrize("make", [
    *LOSSY, *(lambda kind=kind, **options: train.from_optax(kind, **options)
              for kind in ("adamw", "lamb", "lion", "yogi"))])
def test_decay_only_where_its_patterns_say(make):
    decayed = walk(make(weight_decay=0.5, decay=("*/kernel",)))
    plain = walk(make())
    assert np.abs(decayed["kernel"] - plain["kernel"]).max() > 1e-5
    np.testing.assert_array_equal(decayed["bias"], plain["bias"])


@pytest.mark.parametrize("make", LOSSY)
def test_l2_is_a_part_of_the_gradient(make):
    """So momentum gathers it, and Adam and RMSProp divide it by their root."""
    theirs = optax.chain(optax.add_decayed_weights(0.3), make())
    jax.tree.map(np.testing.assert_array_equal, walk(make(weight_decay=0.3)), walk(theirs))


def test_adamw_decays_beside_the_gradient_by_the_rate_of_the_step():
    """With b1 = b2 = 0 the step is that of the sign: w - lr (sign(g) + wd w)."""
    made = train.from_optax("adamw", {"b1": 0.0, "b2": 0.0}, weight_decay=0.5,
                            decay=("*/kernel",))
    kernel, bias = np.array(KERNEL), np.array(BIAS)
    for rate in RATES:
        kernel = kernel - rate * (np.sign(2 * kernel + 0.1) + 0.5 * kernel)
        bias = bias - rate * np.sign(2 * bias + 0.1)
    assert_same(walk(made), (kernel, bias))


def test_muon_decays_what_it_leaves_to_adam_too():
    """Vectors and convolutions, over which its own `weight_decay` has no power."""
    decayed, plain = (walk(train.from_optax("muon", weight_decay=wd), [0.1]) for wd in (0.5, 0.0))
    np.testing.assert_allclose(
        decayed["kernel"], plain["kernel"] - 0.1 * 0.5 * np.array(KERNEL), rtol=1e-5)


@pytest.mark.parametrize("norm, share", [(3.0, True), (1e3, False)])
def test_the_clip_sees_the_whole_gradient_with_its_l2(norm, share):
    """As the PBA code, whose cost holds the L2 term: by hand, one step of plain SGD."""
    made = train.sgd(0.0, weight_decay=0.5, decay=("*/kernel",), clip_norm=norm)
    kernel, bias = np.array(KERNEL), np.array(BIAS)
    whole = np.concatenate([2 * kernel + 0.1 + 0.5 * kernel, 2 * bias + 0.1])
    length = np.linalg.norm(whole)
    assert (length > norm) == share
    whole = whole * min(1.0, norm / length)
    assert_same(walk(made, [0.1]), (kernel - 0.1 * whole[:3], bias - 0.1 * whole[3:]), 1e-6)


def test_the_clip_comes_before_all_that_an_optimiser_of_optax_does():
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.lars(0.1, 0.01))
    ours = train.from_optax("lars", weight_decay=0.01, clip_norm=1.0)
    jax.tree.map(np.testing.assert_array_equal, walk(ours, [0.1] * 4), walk(theirs, [0.1] * 4, 0))
    unclipped = walk(train.from_optax("lars", weight_decay=0.01), [0.1] * 4)
    assert not np.array_equal(unclipped["kernel"], walk(ours, [0.1] * 4)["kernel"])


def test_what_rests_has_no_momentum_and_counts_in_no_norm():
    made = of_moving(train.sgd(0.9, weight_decay=0.5, clip_norm=1.0), ("*/bias", "stats/*"))
    params = start()
    state = made.init(params)
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [(1,)]
    grads = {"nets": {"kernel": jnp.zeros(3), "bias": jnp.array([3.0])}}
    updates, _ = made.update(grads, state, params, learning_rate=0.1)
    np.testing.assert_allclose(updates["nets"]["bias"], [-0.1], rtol=1e-6)  # clipped to 1, alone
    np.testing.assert_array_equal(updates["nets"]["kernel"], np.zeros(3))
    for glob in ("*/kernel", "nets/*"):  # a recipe's globs may name what rests in this phase
        of_moving(train.sgd(weight_decay=0.5, decay=(glob,)), ("*/bias",)).init(params)


@pytest.mark.parametrize("make", [
    train.sgd, lambda **options: train.from_optax("adamw", **options)])
def test_a_glob_that_decays_nothing_is_refused(make):
    made = make(weight_decay=0.1, decay=("*/kernel", "*/scale"))
    with pytest.raises(check.ConfigError, match=r"optimizer.decay: .*nets/bias.*got '\*/scale'"):
        jax.eval_shape(made.init, start())


@pytest.mark.parametrize("field", ["weight_decay", "clip_norm"])
@pytest.mark.parametrize("make", [*LOSSY, lambda **o: train.from_optax("adamw", **o),
                                  lambda **o: train.from_optax("yogi", **o)])
def test_negative_numbers_are_refused(make, field):
    with pytest.raises(check.ConfigError, match=f"{field}: expected at least 0, got -1.0"):
        make(**{field: -1.0})


# --- optax's own, by name ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", train.OPTAX)
def test_a_rate_that_is_told_equals_a_schedule_of_optax(kind):
    """Wherever the rate stands inside; the weight decay of neither is on."""
    rates, builder = [0.1, 0.4, 0.02], train.OPTAX[kind]
    none = {name: 0.0 for name in ("weight_decay", "weight_decay_rate")
            if name in inspect.signature(builder).parameters}
    theirs = builder(learning_rate=lambda count: jnp.array(rates)[count], **none)
    told = walk(train.from_optax(kind), rates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
                 told, walk(theirs, rates, False))
    assert not np.array_equal(told["kernel"], walk(train.from_optax(kind), [0.1] * 3)["kernel"])


def test_the_names_are_those_people_type():
    assert {"adamw", "lamb", "lion", "lars", "adafactor", "rmsprop", "muon"} <= set(train.OPTAX)
    assert not {"lbfgs", "rprop", "schedule_free_adamw"} & set(train.OPTAX)  # follow no rate told


@pytest.mark.parametrize("arguments, sentence", [
    ({"kind": "adamv"}, "optimizer.kind: .*got 'adamv'. Did you mean .*'adamw'"),
    ({"kind": "lbfgs"}, "optimizer.kind: expected one of"),
    ({"kind": "adamw", "options": {"b3": 1}}, "option of adamw: .*got 'b3'. Did you mean 'b"),
    ({"kind": "adamw", "options": {"learning_rate": 1}}, "option of adamw: .*'learning_rate'"),
    ({"kind": "lamb", "options": {"mask": 1}}, "option of lamb: .*'mask'"),
    ({"kind": "adamw", "options": {"b2": "x"}}, "options of adamw: expected values that optax "),
    ({"kind": "novograd", "weight_decay": 0.1, "decay": ("*/kernel",)},
     "optimizer.decay: .*novograd decays every parameter"),
    ({"kind": "muon", "weight_decay": 0.1, "decay": ("*/kernel",)},
     "optimizer.decay: .*muon decays every parameter"),
], ids=str)
def test_what_optax_does_not_know_is_refused(arguments, sentence):
    with pytest.raises(check.ConfigError, match=sentence):
        train.from_optax(**arguments)


def test_an_option_may_be_called_as_an_argument_of_ours():
    """optax's rmsprop has a `decay` that is no glob."""
    ours = walk(train.from_optax("rmsprop", {"decay": 0.5, "momentum": 0.9}))
    theirs = optax.rmsprop(lambda count: jnp.array(RATES)[count], decay=0.5, momentum=0.9)
    jax.tree.map(np.testing.assert_allclose, ours, walk(theirs, extra=False))


# --- PyTorch and timm ----------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("name, options", [
    ("SGD", {"momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    ("Adam", {"weight_decay": 0.01, "eps": 1e-5}),
])
def test_equals_pytorch_under_a_changing_rate(name, options):
    import torch

    theirs = torch_walk(lambda weights, rate: getattr(torch.optim, name)(
        weights, lr=rate, **options))
    assert_same(walk(train.OPTIMIZERS[name.lower()](**options)), theirs)


@pytest.mark.parity
def test_adamw_equals_pytorch():
    import torch

    theirs = torch_walk(lambda weights, rate: torch.optim.AdamW(
        weights, lr=rate, betas=(0.9, 0.95), weight_decay=0.3))
    assert_same(walk(train.from_optax("adamw", {"b2": 0.95}, weight_decay=0.3)), theirs)


@pytest.mark.parity
def test_the_clip_equals_pytorch_where_the_loss_holds_the_l2():
    import torch

    def clip(weights):
        for weight in weights:
            weight.grad += 0.3 * weight.detach()
        torch.nn.utils.clip_grad_norm_(weights, 2.0)

    theirs = torch_walk(lambda weights, rate: torch.optim.SGD(
        weights, lr=rate, momentum=0.9, nesterov=True), before=clip)
    assert_same(walk(train.sgd(0.9, True, weight_decay=0.3, clip_norm=2.0)), theirs)


@pytest.fixture
def timm_optim():
    load("torchvision")  # which timm imports
    import timm.optim

    assert "timm" in sys.modules
    return timm.optim


@pytest.mark.parity
@pytest.mark.parametrize("eps", [1e-3, 1e-10])
def test_rmsprop_tf_equals_timm(timm_optim, eps):
    theirs = torch_walk(lambda weights, rate: timm_optim.RMSpropTF(
        weights, lr=rate, alpha=0.9, momentum=0.9, eps=eps, weight_decay=0.01))
    assert_same(walk(train.rmsprop_tf(eps=eps, weight_decay=0.01)), theirs)


@pytest.mark.parity
@pytest.mark.parametrize("kind, name, options", [
    ("lamb", "Lamb", {"max_grad_norm": None}), ("lion", "Lion", {"betas": (0.9, 0.99)})])
def test_lamb_and_lion_equal_timm(timm_optim, kind, name, options):
    theirs = torch_walk(lambda weights, rate: getattr(timm_optim, name)(
        weights, lr=rate, weight_decay=0.3, **options))
    assert_same(walk(train.from_optax(kind, weight_decay=0.3)), theirs)

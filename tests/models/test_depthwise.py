"""Depthwise convolutions: both forms, whatever the shape, and on many devices."""

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import numpy as np
import pytest

from augjax import models
from augjax.models import depthwise as layer
from augjax.models.depthwise import CHOICE, depthwise, GROUPED, SHIFTED

BUILD = models.Build(classes=2)


def both_ways(form, x, kernel, dy, stride, pads):
    """Values and both gradients by one form."""
    y = form.forward(x, kernel, stride=stride, pads=pads)
    return (y, *form.backward(x, kernel, dy(y), stride=stride, pads=pads))


@pytest.mark.parametrize("size, stride, padding, sides", [
    (3, 1, "SAME", (4, 5)), (3, 2, "SAME", (4, 5)), (5, 2, "SAME", (2, 7)), (5, 1, "SAME", (1, 3)),
    (3, 2, 1, (5, 4)), (5, 2, 2, (4, 6)), (3, 3, 1, (7, 8)), (1, 2, 0, (4, 3)), (3, 1, 0, (4, 4))])
def test_the_forms_agree(size, stride, padding, sides):
    normal = np.random.default_rng(0).standard_normal
    x, kernel = (jnp.asarray(normal(shape), jnp.float32) for shape in
                 ((2, *sides, 3), (size, size, 1, 3)))
    pads = ((padding, padding),) * 2 if padding != "SAME" else tuple(
        lax.padtype_to_pads(sides, (size, size), (stride, stride), "SAME"))

    def dy(y):
        return jnp.asarray(np.random.default_rng(1).standard_normal(y.shape), jnp.float32)

    ways = [jax.jit(lambda x, kernel, form=form: both_ways(form, x, kernel, dy, stride, pads))(
        x, kernel) for form in (GROUPED, SHIFTED)]
    for theirs, ours in zip(*ways):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def squares(x, kernel):
    return jax.grad(lambda *both: (depthwise(*both, 2, ((0, 1),) * 2) ** 2).sum(), (0, 1))(
        x, kernel)


def test_the_gradient_is_that_of_the_values():
    normal = np.random.default_rng(0).standard_normal
    x, kernel = jnp.asarray(normal((2, 4, 4, 3))), jnp.asarray(normal((3, 3, 1, 3)))
    way = [jnp.asarray(normal(part.shape)) for part in (x, kernel)]

    def along(t):
        return (depthwise(x + t * way[0], kernel + t * way[1], 2, ((0, 1),) * 2) ** 2).sum()

    slope = sum((g * w).sum() for g, w in zip(squares(x, kernel), way))
    assert float(slope) == pytest.approx(float(along(1e-2) - along(-1e-2)) / 2e-2, rel=1e-2)


def test_a_batch_on_many_devices_stays_where_it_is():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    normal = np.random.default_rng(0).standard_normal
    x = jnp.asarray(normal((16, 8, 8, 4)), jnp.float32)
    kernel = jnp.asarray(normal((3, 3, 1, 4)), jnp.float32)
    cut = [jax.device_put(part, NamedSharding(mesh, spec)) for part, spec in
           ((x, P("data")), (kernel, P()))]
    compiled = jax.jit(squares).lower(*cut).compile()
    for alone, together in zip(jax.jit(squares)(x, kernel), compiled(*cut)):
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
    program = compiled.as_text()
    assert "all-reduce(" in program  # of the kernel's gradient
    assert not any(word in program for word in ("all-gather(", "all-to-all("))


def test_the_platform_that_is_compiled_for_chooses():
    arguments = jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 1, 2))
    for platform, form in (("cpu", "cpu"), ("cuda", "default"), ("tpu", "default")):
        lowered = jax.jit(squares).trace(*arguments).lower(lowering_platforms=(platform,))
        assert ("convolution" in lowered.as_text()) == (CHOICE[form] is GROUPED)


def test_low_precision_is_summed_in_float32():
    normal = np.random.default_rng(0).standard_normal
    x, kernel = jnp.asarray(normal((2, 8, 8, 4))), jnp.asarray(normal((5, 5, 1, 4)))
    half = [part.astype(jnp.bfloat16) for part in (x, kernel)]
    pads = ((2, 2),) * 2
    y = SHIFTED.forward(*half, stride=1, pads=pads)
    whole = SHIFTED.forward(*(part.astype(jnp.float32) for part in half), stride=1, pads=pads)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, whole.astype(jnp.bfloat16))


def test_the_layer_is_a_grouped_convolution_with_the_same_parameters():
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 4))
    for stride, padding in ((1, None), (2, "SAME"), (2, None)):
        own = BUILD.depthwise(4, 3, "layer", stride, padding)
        theirs = BUILD.conv(4, 3, "layer", stride, groups=4, padding=padding)
        variables = own.init(jax.random.key(1), x)
        jax.tree.map(np.testing.assert_array_equal, variables, theirs.init(jax.random.key(1), x))
        np.testing.assert_allclose(own.apply(variables, x), theirs.apply(variables, x), atol=1e-5)
    assert isinstance(own, layer.Depthwise)

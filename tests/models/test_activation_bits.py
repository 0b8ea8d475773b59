"""Where networks quantise what their layers read (spec C7)."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax.compress import dorefa
from augjax.models import FULL_PRECISION
from zoo_rows import drawn, net_of, rows_of, TOYS


@pytest.mark.parametrize("name", ["resnet18", "alexnet_cifar"])
def test_layers_of_the_paper_read_quantised_activations_but_the_first_and_the_last(name):
    """The hook dyes what it gives with a type of its own; shortcuts read it too."""
    size, options = TOYS[name]
    net = net_of(name, 5, size, activation=lambda x: x.astype(jnp.float16), **options)
    plain = set()

    def spy(call, args, kwargs, context):
        if isinstance(context.module, (nn.Conv, nn.Dense)) and args[0].dtype != jnp.float16:
            plain.add("/".join(context.module.path))
        return call(*args, **kwargs)

    variables = jax.eval_shape(net.init, jax.random.key(0))
    with nn.intercept_methods(spy):
        jax.eval_shape(net.predict, variables, rows_of(2, size))
    assert plain == {"stem", "head"}
    jax.eval_shape(dorefa(FULL_PRECISION).init, {"student": variables[0]})  # which those globs fit


def test_identity_shortcuts_of_a_resnet_carry_what_the_hook_gives():
    size, _ = TOYS["resnet8_tiny"]
    net = net_of("resnet8_tiny", 5, size, activation=lambda x: 0 * x)
    logits = jax.jit(lambda v: net.predict(v, rows_of(3, size)).logits)(drawn(net))
    np.testing.assert_array_equal(logits, np.broadcast_to(logits[:1], logits.shape))

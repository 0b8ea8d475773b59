"""ResNets of four stages: what `padding` changes; the zoo's laws are in test_zoo."""

import jax
import jax.numpy as jnp
import pytest

from zoo_rows import net_of, rows_of

SMALL = {"blocks": (1, 1, 1, 1), "widths": (4, 4, 6, 8)}


@pytest.mark.parametrize("bottleneck", [False, True])
def test_padding_moves_maps_of_even_sides_only(bottleneck):
    """65 pixels give maps of 33, 17, 9, 5 and 3, which both pad alike; 64 give even ones."""
    for size, differ in ((65, False), (64, True)):
        nets = [net_of("resnet18", size=size, bottleneck=bottleneck, padding=padding, **SMALL)
                for padding in ("torch", "same")]
        variables = nets[0].init(jax.random.key(0))
        ours, theirs = (jax.jit(net.predict)(variables, rows_of(2, size)) for net in nets)
        assert float(jnp.abs(ours.features["f0"] - theirs.features["f0"]).max()) == 0
        for tap in ("f1", "f2", "f3", "f4"):
            distance = float(jnp.abs(ours.features[tap] - theirs.features[tap]).max())
            assert (distance > 1e-2) if differ else (distance < 1e-5), (size, tap)


def test_role_kd_has_batch_normalisation_of_its_own():
    """Spec C7: decay 0.99, epsilon 0.001; of all else it is the ResNet-18 with a CIFAR stem."""
    def shown(name):
        net = net_of(name, size=16, **SMALL)
        variables = net.init(jax.random.key(0))
        outputs, stats = net.train(variables, rows_of(4, 16), jax.random.key(1))
        return outputs.features["f0"], stats["stem_norm"]["mean"]

    (plain, plain_mean), (ours, our_mean) = shown("resnet18_cifar"), shown("resnet18_role_kd")
    assert jnp.allclose(our_mean, plain_mean / 10, rtol=1e-5) and jnp.abs(our_mean).max() > 0
    assert 1e-5 < float(jnp.abs(ours - plain).max()) < 0.1  # the epsilons' doing

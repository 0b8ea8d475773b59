"""The way out stays open: a Flax NNX model behind the same three functions."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from augjax.types import Net, Outputs, Rows, View


class Small(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, image):
        x = nnx.relu(self.norm(self.conv(image.astype(jnp.float32) / 255)))
        pooled = x.mean((1, 2))
        return Outputs(self.head(pooled), {"f0": x}, pooled)


def nnx_net(make):
    """Split once; merge a copy in every call, so that no traced value is written into a module."""

    def init(key):
        _, params, stats = nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    graph, *states = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)

    def merged(variables):
        held = [jax.tree.map(lambda leaf: leaf, state) for state in states]
        for state, values in zip(held, variables):
            nnx.replace_by_pure_dict(state, values)
        return nnx.merge(graph, *held, copy=True)

    def train(variables, rows, key):
        model = merged(variables)
        model.train()
        outputs = model(rows.image)
        return outputs, nnx.to_pure_dict(nnx.split(model, nnx.Param, ...)[2])

    def predict(variables, rows, domain=0):
        model = merged(variables)
        model.eval()
        return model(rows.image)

    return Net(init, train, predict)


def test_an_nnx_model_is_a_net():
    net = nnx_net(Small)
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    label = jnp.arange(6) % 5
    rows = Rows(jnp.asarray(image), label, label, jnp.ones(6), label, (View("all"),))
    params, stats = net.init(jax.random.key(0))

    @jax.jit
    def step(params, stats):
        def loss(params):
            outputs, moved = net.train((params, stats), rows, jax.random.key(1))
            return -jax.nn.log_softmax(outputs.logits)[jnp.arange(6), label].mean(), moved

        (value, moved), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return value, jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient), moved

    values = []
    for _ in range(5):
        value, params, stats = step(params, stats)
        values.append(float(value))
    assert values[-1] < values[0]
    assert float(jnp.abs(stats["norm"]["mean"]).max()) > 0  # the running statistics moved
    outputs = jax.jit(net.predict)((params, stats), rows)
    assert outputs.logits.shape == (6, 5) and bool(jnp.isfinite(outputs.logits).all())

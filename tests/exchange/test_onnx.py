"""A network that leaves as ONNX: run by onnxruntime, it says what the run folder's network says."""

import sys

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import builders, check, compress, defaults, exchange, train, tree
from augjax.augment import plain
from augjax.exchange import card, formats
from augjax.exchange.to_onnx import BEGINNING, to_onnx
from augjax.models.depthwise import depthwise
from augjax.train import sharding, start
from augjax.types import Batch
from trained_run import trained_run

IMAGES = 4  # few: a quantised activation next to a step may fall to either side of it
NETWORKS = {  # name: (model, transform, BatchNorm set)
    "resized": (defaults.model("resnet8_tiny", domains=2, image_size=24), {}, 1),
    "masked_2_bits": (defaults.model("resnet8_tiny", activation_bits=2),
                      {"mask": defaults.mask(0.6), "dorefa": defaults.dorefa(2)}, 0),
}
PIP = r'pip install -e "\.\[onnx\]"'


@pytest.fixture(scope="module")
def runtime():
    """onnxruntime, where the extra is installed."""
    reason = 'the extra "onnx" of augjax is not installed'
    pytest.importorskip("onnx", reason=reason)
    return pytest.importorskip("onnxruntime", reason=reason)


@pytest.fixture(scope="module", params=NETWORKS)
def leaving(request, runtime, tmp_path_factory):
    """(exported file, function that exports again, run folder, recipe, BatchNorm set)."""
    model, transform, domain = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    workdir, built = trained_run(folder / "run", model, transform, IMAGES)
    pictures = builders.Pictures("digits", 10, (16, 16, 3))
    described = builders.describe_net(model, pictures)

    def export(path):
        exchange.export(train.Source("net", str(workdir)), built, described, path, "onnx", domain)
        return path

    return export(folder / "net.onnx"), export, workdir, built, domain


def variables_of(workdir, built):
    """(params, stats) of the run folder's network, as they are seen."""
    params, stats, edited = start.read(train.Source("net", str(workdir)), built, workdir,
                                       sharding.make_mesh(jax.devices()[:1]))
    return built.phases[0].objective.transform.apply(params, edited)["student"], stats


def test_any_number_of_rows_and_both_kinds_of_pixels(runtime, leaving):
    path, _, workdir, built, domain = leaving
    images, label = built.data.test.read(np.arange(IMAGES)), np.zeros(IMAGES, np.int32)
    net, forward = built.phases[0].objective.nets["student"], exchange.load(path)
    wanted = np.asarray(jax.jit(net.predict, static_argnums=2)(
        variables_of(workdir, built), plain(Batch(images, label, label)), domain).logits)
    session = runtime.InferenceSession(str(path))  # as the card says
    (pixels,) = session.get_inputs()
    assert (pixels.name, pixels.type, pixels.shape) == ("pixels", "tensor(float)", ["b", 16, 16, 3])
    floats = images.astype(np.float32)
    for logits in (forward(images[:1]), forward(images[:3]), forward(floats[:2]),
                   session.run(["logits"], {"pixels": floats})[0]):
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, wanted[: len(logits)], rtol=0,
                                   atol=1e-4 * np.abs(wanted).max())
    assert "onnxruntime.InferenceSession(" in card.of(path).read_text()
    with pytest.raises(check.ConfigError, match="16, 16, 3"):
        forward(images[:2, :8])


def test_kernels_are_those_that_the_network_sees(leaving):
    """Masks applied and weights at their levels, in the file itself; nothing is stored twice."""
    import onnx

    path, _, workdir, built, _ = leaving
    stored = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    params, _ = variables_of(workdir, built)
    inner = []
    for name, leaf in tree.flatten(params).items():
        if leaf.ndim == 4:
            wanted = np.transpose(leaf, (3, 2, 0, 1))
            assert sum(np.array_equal(wanted, kernel) for kernel in stored) == 1, name
            inner += [] if name.startswith("stem") else [wanted.ravel()]
    if "dorefa" in built.phases[0].objective.transform.init({"student": params}):
        inner = np.concatenate(inner)
        np.testing.assert_allclose(np.unique(inner), [-1, -1 / 3, 0, 1 / 3, 1], rtol=1e-6)
        assert 0.5 < (inner == 0).mean() < 0.7


def test_a_file_that_differs_leaves_nothing(leaving, tmp_path, monkeypatch):
    import onnx

    write, read = exchange.FORMATS["onnx"]

    def wrong(network, path):
        write(network, path)
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if tensor.dims == [8, 3, 3, 3]:  # of the stem
                tensor.CopyFrom(onnx.numpy_helper.from_array(
                    onnx.numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
        onnx.save(model, path)

    monkeypatch.setitem(exchange.FORMATS, "onnx", (wrong, read))
    with pytest.raises(check.NumericsError, match="predictions, and logits within"):
        leaving[1](tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_a_broken_file_is_refused(leaving, tmp_path):
    path, whole = tmp_path / "net", leaving[0].read_bytes()
    assert whole.startswith(BEGINNING)
    for content in (whole[: len(whole) // 2], BEGINNING, BEGINNING + b"x" * 5000):
        path.write_bytes(content)
        with pytest.raises(check.DataError, match="a whole onnx file"):
            exchange.load(path)


# --- operators -----------------------------------------------------------------------------------


KERNEL = np.random.default_rng(0).normal(size=(3, 3, 1, 4)).astype(np.float32)


def shuffled(x):
    one, three = jnp.split(x * 2 - 1, [1], axis=3)
    return jnp.stack([one, three[..., 1:2]], 3).reshape(x.shape[0], -1) / 3


FUNCTIONS = {
    "quantised": lambda x: compress.quantise_activations(2)(x / 6),
    "depthwise": lambda x: depthwise(x, KERNEL, 2, ((1, 0), (0, 1))),
    "maximum": lambda x: nn.max_pool(x - 9, (3, 2), (2, 1), ((1, 1), (0, 1))),
    "mean": lambda x: nn.avg_pool(x, (3, 2), (2, 1), ((1, 1), (0, 1))),
    "window": lambda x: jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (2, 1), (0, 0)), constant_values=7),
    "cut": lambda x: jax.lax.pad(x, np.float32(0), ((0, 0, 0), (-1, 2, 0), (0, 0, 0), (1, 0, 0))),
    "shuffled": shuffled,
    "excited": lambda x: x * nn.sigmoid(x.mean((1, 2)))[:, None, None],
    "dilated": lambda x: jax.lax.conv_general_dilated(
        x, np.tile(KERNEL, (1, 1, 2, 1)), (1, 2), "SAME", rhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2),
    "products": lambda x: jnp.concatenate([jnp.einsum("bhwc,bhvc->bwvh", x, x / 3)] * 2, 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operator_does_what_the_primitive_does(runtime, name):
    """Pixels 0 to 6, so that a third of them lies in the middle between levels of the quantiser."""
    pixels = np.random.default_rng(1).integers(0, 7, (3, 6, 6, 4)).astype(np.float32)
    session = runtime.InferenceSession(to_onnx(FUNCTIONS[name], (6, 6, 4)))
    wanted = FUNCTIONS[name](pixels)
    (came,) = session.run(None, {"pixels": pixels})
    assert came.shape == wanted.shape and came.dtype == wanted.dtype
    np.testing.assert_allclose(came, wanted, rtol=1e-5, atol=1e-5)


def summed(x, window):
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1, 1, 1), "VALID")


@pytest.mark.parametrize(("function", "match"), [
    (jnp.sin, "got sin"), (jax.lax.round, "TO_NEAREST_EVEN"),
    (lambda x: summed(x, (1, 2, 2, 2)), "windows over H and W"),
    (lambda x: jnp.broadcast_to(x[:, :1, :1], x.shape), "new axes of size 1"),
    (lambda x: x[:, ::2, ::2], "one window at a known place"),
    (lambda x: jax.lax.pad(x, np.float32(0), ((0, 0, 1),) * 4), "nothing between"),
    (lambda x: jax.lax.conv_transpose(x, KERNEL.swapaxes(2, 3), (2, 2), "SAME"), "no dilation"),
])
def test_what_has_no_operator_is_refused(runtime, function, match):
    with pytest.raises(check.ConfigError, match=match):
        to_onnx(function, (6, 6, 4))


# --- before any work -----------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_said_at_once(monkeypatch, tmp_path, package):
    """Before the run folder, which is not there, is looked at."""
    monkeypatch.setitem(sys.modules, package, None)
    source = train.Source("net", str(tmp_path / "none"))
    with pytest.raises(check.ConfigError, match=f"no {package}.*{PIP}"):
        exchange.export(source, None, {}, tmp_path / "net", "onnx")
    (tmp_path / "net").write_bytes(BEGINNING)
    with pytest.raises(check.ConfigError, match=PIP):
        exchange.load(tmp_path / "net")


def test_other_types_than_float32_are_refused(tmp_path):
    with pytest.raises(check.ConfigError, match="float32, got bfloat16"):
        exchange.FORMATS["onnx"][0](formats.Deployed({"dtype": "bfloat16"}, (), (), {}, {}),
                                    tmp_path / "net")

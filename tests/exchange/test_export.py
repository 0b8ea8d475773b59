"""A file that leaves the house predicts what the run folder's network does, from the file alone."""

import json
import os
from pathlib import Path
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from augjax import builders, check, defaults, exchange, train, tree
from augjax.augment import plain
from augjax.exchange import card
from augjax.exchange.formats import of_one_set, PLATFORMS
from augjax.models.depthwise import depthwise
from augjax.train import sharding, start
from augjax.types import Batch
from trained_run import trained_run

ROOT = Path(__file__).resolve().parents[2]
MODEL = {"name": "resnet8_tiny", "classes": 10, "image_shape": (24, 24, 3),
         "mean": (0.3,) * 3, "std": (0.4,) * 3}  # sees more pixels than the digits have
IMAGES = 20
VARIANTS = {"stablehlo": ("raw", 0), "safetensors": ("ema", 1)}  # weights, BatchNorm set


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(run folder, its recipe with 20 test images), with a mask and two BatchNorm sets."""
    block = defaults.model("resnet8_tiny", domains=2, image_size=24, mean=MODEL["mean"],
                           std=MODEL["std"])
    return trained_run(tmp_path_factory.mktemp("trained") / "run", block,
                       {"mask": defaults.mask(0.6)}, IMAGES)


def source_of(trained, phase="net", weights="raw"):
    return train.Source(phase, str(trained[0]), weights=weights)


def exported(trained, path, format="safetensors", **options):
    weights, domain = VARIANTS[format]
    return exchange.export(source_of(trained, weights=weights), trained[1], MODEL, path, format,
                           domain, **options)


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """({format: its file}, {format: what was measured}) in a folder of their own."""
    folder = tmp_path_factory.mktemp("out")
    paths = {format: folder / f"net.{format}" for format in VARIANTS}
    return paths, {format: exported(trained, path, format, data_note="small")
                   for format, path in paths.items()}


@pytest.fixture(scope="module")
def expected(trained):
    """The function (weights, domain) -> logits of all test images, by the run folder's parts."""
    workdir, built = trained
    objective, images = built.phases[0].objective, built.data.test.read(np.arange(IMAGES))
    rows = plain(Batch(images, np.zeros(IMAGES, np.int32), np.zeros(IMAGES, np.int32)))
    predict = jax.jit(lambda variables, domain: objective.nets["student"].predict(
        variables, rows, domain).logits)

    def logits(weights, domain):
        params, stats, masks = start.read(source_of(trained, weights=weights), built, workdir,
                                          sharding.make_mesh(jax.devices()[:1]))
        seen = objective.transform.apply(params, masks)["student"]
        return np.asarray(predict((seen, stats), domain))

    return logits


@pytest.mark.parametrize("format", VARIANTS)
def test_any_number_of_rows_and_both_kinds_of_pixels(trained, files, expected, format):
    images, forward = trained[1].data.test.read(np.arange(IMAGES)), exchange.load(files[0][format])
    wanted = expected(*VARIANTS[format])
    close = 1e-4 * np.abs(wanted).max()
    for pixels in (images[:1], images[:7], images[:7].astype(np.float32)):
        logits = forward(pixels)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, wanted[: len(pixels)], rtol=0, atol=close)
    for other in (("raw", 0), ("raw", 1), ("ema", 0), ("ema", 1)):
        if other != VARIANTS[format]:  # so that a wrong choice would have been seen
            assert np.abs(expected(*other) - wanted).max() > 3 * close
    with pytest.raises(check.ConfigError, match="16, 16, 3"):
        forward(images[:2, :8])


def test_a_program_holds_its_own_platforms(files):
    program = jax.export.deserialize(bytearray(files[0]["stablehlo"].read_bytes()))
    assert program.platforms == PLATFORMS == ("cpu", "cuda", "tpu")
    assert str(program.in_avals[0].shape) == "(b, 16, 16, 3)"


def test_what_is_chosen_by_platform_is_exported_for_all():
    """Depthwise convolutions, which have a form of their own on CPUs."""
    kernel = np.arange(36, dtype=np.float32).reshape(3, 3, 1, 4)
    convolve = jax.jit(lambda x: depthwise(x, kernel, 1, ((1, 1), (1, 1))))
    x = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 5, 5, 4"), jnp.float32)
    program = jax.export.export(convolve, platforms=PLATFORMS)(x)
    program = jax.export.deserialize(program.serialize())
    image = np.random.default_rng(0).normal(size=(3, 5, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(program.call(image), convolve(image), rtol=1e-5)


def test_tensors_are_masked_and_of_one_batchnorm_set(trained, files):
    workdir, built = trained
    params, stats, masks = start.read(source_of(trained, weights="ema"), built, workdir,
                                      sharding.make_mesh(jax.devices()[:1]))
    tensors = load_file(files[0]["safetensors"])
    params = tree.flatten(params["student"])
    assert set(tensors) == {f"params/{path}" for path in params} | {
        f"batch_stats/{path}" for path in tree.flatten(stats)}
    kept = {path.removeprefix("mask/student/"): value
            for path, value in tree.flatten(masks).items()}
    for path, value in kept.items():
        np.testing.assert_array_equal(tensors[f"params/{path}"], params[path] * value)
    pruned = sum((tensors[f"params/{path}"] == 0).sum() for path in kept)
    assert pruned == round(0.6 * sum(value.size for value in kept.values()))
    for path, value in tree.flatten(stats).items():
        assert value.shape[0] == 2
        np.testing.assert_array_equal(tensors[f"batch_stats/{path}"], value[1:])
        scale = path.rpartition("/")[0] + "/scale"
        np.testing.assert_array_equal(tensors[f"params/{scale}"], params[scale][1:])


def test_the_card_says_what_was_measured(trained, files, expected):
    paths, measured = files
    assert sorted(paths["stablehlo"].parent.iterdir()) == sorted(
        [*paths.values(), *map(card.of, paths.values())])
    text = card.of(paths["safetensors"]).read_text()
    hits = expected(*VARIANTS["safetensors"]).argmax(1) == trained[1].data.test.labels
    found = measured["safetensors"]
    assert found["accuracy"] == hits.mean() and found["top5_accuracy"] >= found["accuracy"]
    commit = json.loads((trained[0] / "provenance.json").read_text())["starts"][0]["git_commit"]
    for part in (f"this file, run again | accuracy | {hits.mean():.2%}", "- note: small",
                 "final_accuracy | 12.50%", "resnet8_tiny for digits",
                 "| net | scratch | none | 2 | 16 | ce x 1 |", "sparsity of the layers below: 60.",
                 "Phase net, step 2, ema weights, BatchNorm set 1", commit,
                 "licence of the network: not stated", "32 train, 20 test"):
        assert part in text, part
    assert "later" not in text


def test_sizes_are_those_of_the_formula():
    """A bitmap is stored where it saves, and where few bits have no level for a 0 that is there."""
    layers = [card.Layer(name, (), *numbers) for name, numbers in {
        "pruned": (9, 4, 2), "dense": (16, 16, 32), "low bit": (16, 16, 4),
        "hardly pruned": (64, 63, 32), "low bit, hardly pruned": (16, 15, 2)}.items()]
    assert card.sizes(layers, 130) == {
        "dense": 4 * 130, "sparse": 4 * 9 + (2 + 16) + 64 + 64 + 256 + (2 + 60),
        "packed": 4 * 9 + (2 + 1) + 64 + 8 + 256 + (2 + 4)}


def test_bits_are_those_of_the_inner_layers():
    params = {name: {"kernel": np.ones((2, 2)), "bias": np.ones(2)} for name in
              ("stem", "block", "head")}
    bits = {"dorefa": {"bits": np.int32(4)}, "mask": {"student/block/kernel": np.ones((2, 2))}}
    assert {layer.path: layer.bits for layer in card.layers(params, bits)} == {
        "block/kernel": 4, "head/kernel": 32, "stem/kernel": 32}


def test_what_leaves_is_described_for_one_batchnorm_set():
    """At the size that its rows have, and in data that JSON holds."""
    block = defaults.model("resnet8_tiny", domains=2, scales=(16, 24), bn_images=8, views=("a",))
    described = builders.describe_net(block, builders.Pictures("digits", 10, (16, 16, 3)))
    sizes = [of_one_set(described, domain)["image_shape"] for domain in (0, 1)]
    assert sizes == [(16, 16, 3), (24, 24, 3)]
    left = json.loads(json.dumps(of_one_set(described, 1)))
    assert not {"domains", "scales", "views", "bn_images", "image_size"} & set(left)
    _, stats = jax.eval_shape(exchange.network(left).init, jax.random.key(0))
    assert {len(leaf) for leaf in jax.tree.leaves(stats)} == {1}


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [
    lambda logits: logits + 2e-3, lambda logits: logits * np.nan, lambda logits: -logits,
    lambda logits: logits + 2e-3 * (len(logits) == 1), lambda logits: logits[:, ::-1],
    lambda logits: np.where(logits == logits.max(1, keepdims=True), np.nan, logits)])
def test_logits_that_differ_are_refused(trained, change):
    """Logits 0 to 10, so that 1e-3 is let through; one change is of lone rows."""
    images = trained[1].data.test

    def reference(pixels):
        return pixels[:, 5, :10, 0] * np.float32(10 / 255)

    found = exchange.compared(reference, reference, images, 7, "stablehlo", {})
    assert found["difference"] == 0 and found["largest_logit"] == 10
    near = exchange.compared(lambda x: reference(x) + np.float32(5e-4), reference, images, 7,
                             "onnx", {})
    assert near["accuracy"] == found["accuracy"]
    for format, model, why in (
        ("onnx", {}, ""), ("safetensors", {"dtype": "float32", "activation_bits": 32}, ""),
        ("onnx", {"activation_bits": 4}, "in onnxruntime; --format=stablehlo and --fo"),
        ("stablehlo", {"activation_bits": 4}, "otherwise in a batch of another size"),
        ("safetensors", {"dtype": "bfloat16"}, "perhaps bfloat16"),
    ):
        with pytest.raises(check.NumericsError) as caught:
            exchange.compared(lambda x: change(reference(x)), reference, images, 7, format, model)
        sentence = str(caught.value)
        assert f". Nothing was kept{': perhaps ' if why else '.'}" in sentence and why in sentence
    for part in ("run on all 20 test images, each by itself and in batches of 7",
                 "logits within 0.001 (0.0001 of the largest)", "of 40 predictions"):
        assert part in str(caught.value)


def test_a_file_that_differs_leaves_nothing(trained, tmp_path, monkeypatch):
    write, read = exchange.FORMATS["safetensors"]

    def wrong(leaving, path):
        kernel = leaving.params["head"]["kernel"]
        write(leaving._replace(params=leaving.params | {
            "head": leaving.params["head"] | {"kernel": kernel * np.float32(1.01)}}), path)

    monkeypatch.setitem(exchange.FORMATS, "safetensors", (wrong, read))
    with pytest.raises(check.NumericsError, match="predictions, and logits within"):
        exported(trained, tmp_path / "net")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", VARIANTS)
def test_an_altered_file_is_refused(files, tmp_path, format):
    path, whole = tmp_path / "net", files[0][format].read_bytes()
    path.write_bytes(whole)
    card.of(path).write_text(card.of(files[0][format]).read_text())
    exchange.load(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(check.DataError, match="SHA-256"):
        exchange.load(path)
    card.of(path).unlink()
    for content in (whole[:middle], b"", b"x" * 5000):
        path.write_bytes(content)
        with pytest.raises(check.DataError, match="a whole stablehlo|safetensors file"):
            exchange.load(path)


def test_another_network_s_tensors_are_refused(files, tmp_path):
    tensors, path = load_file(files[0]["safetensors"]), tmp_path / "net"
    for described in ({**MODEL, "classes": 11}, {**MODEL, "width": 2}, {"name": "resnet9"}):
        save_file(tensors, path, {"model": json.dumps(described), "image_shape": "[16, 16, 3]"})
        with pytest.raises(check.DataError):
            exchange.load(path)
    save_file(tensors, path)
    with pytest.raises(check.DataError, match="model"):
        exchange.load(path)


def test_wrong_names_are_refused_and_nothing_is_written(trained, files, tmp_path):
    def refused(error, match, phase="net", path=tmp_path / "net", format="stablehlo", domain=0,
                workdir=trained[0]):
        with pytest.raises(error, match=match):
            exchange.export(train.Source(phase, str(workdir)), trained[1], MODEL, path, format,
                            domain)

    refused(check.CheckpointError, "Train it to its end", phase="later")
    refused(check.ConfigError, "'net'", phase="nett")
    refused(check.ConfigError, "'safetensors', 'stablehlo'", format="onxx")
    refused(check.ConfigError, "0 to 1", domain=2)
    refused(check.ConfigError, "not there yet", path=files[0]["stablehlo"])
    refused(check.ConfigError, "Make the folder", path=tmp_path / "none/net")
    refused(check.CheckpointError, "summary.json", workdir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command(trained, tmp_path):
    """With all 360 test images, and the description that it makes of the config."""
    out = tmp_path / "net.safetensors"
    cache = str(Path.home() / ".cache/augjax/tests-launch")
    done = subprocess.run(
        [sys.executable, "-m", "launch.export", f"--workdir={trained[0]}", "--phase=net",
         "--format=safetensors", f"--out={out}"], cwd=ROOT, capture_output=True, text=True,
        timeout=300, env={**os.environ, "AUGJAX_CACHE": cache, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    assert "net's resnet8_tiny, top-1" in done.stdout and "360 test images" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, f"{out.name}.md"]
    assert "image_shape: (24, 24, 3)" in card.of(out).read_text()

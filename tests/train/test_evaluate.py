"""Accuracy is a whole number of images over every image, however they are cut into batches."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, train
from augjax.train import evaluate, sharding, Source
from augjax.types import identity, Net, Outputs
from train.helpers import CLASSES, phase, pictures, recipe, rows, SHAPE, three_phases

CLASSES_TOP5 = 9


def oracle(classes: int) -> Net:
    """Says fixed logits that depend on nothing but the image's pixels."""
    mix = np.random.default_rng(0).normal(size=(int(np.prod(SHAPE)), classes)).astype(np.float32)

    def say(variables, rows, domain=0):
        flat = rows.image.reshape(rows.image.shape[0], -1).astype(jnp.float32)
        return Outputs(jnp.round(flat / 16) @ mix)

    return Net(lambda key: ({}, {}), None, say)


def counted(data, batch_size, devices):
    """(accuracies, what NumPy finds)."""
    mesh, net = sharding.make_mesh(jax.devices()[:devices]), oracle(data.classes)
    asked = train.Branches((("student", 0),))
    judge = jax.jit(evaluate.make_evaluate({"student": net}, identity(), asked),
                    out_shardings=sharding.replicated(mesh))
    found = evaluate.accuracies(
        judge, asked, ({"nets": {"student": {}}, "terms": {}}, {"student": {}}, {}),
        evaluate.batches(data.test, batch_size, mesh), mesh)
    images = data.test.read(np.arange(len(data.test)))
    logits = np.asarray(net.predict(None, SimpleNamespace(image=images)).logits)
    ranks = (logits > logits[np.arange(len(logits)), data.test.labels][:, None]).sum(1)
    expected = {"accuracy": np.mean(ranks == 0), "top5_accuracy": np.mean(ranks < 5)}
    return found, expected


@pytest.mark.parametrize("batch_size, devices", [(8, 1), (8, 8), (32, 2), (64, 8), (48, 1)])
def test_every_image_counts_once_in_batches_of_any_size(batch_size, devices):
    """45 images: the last batch is padded, and what pads it is masked."""
    names = tuple(map(str, range(CLASSES_TOP5)))
    few = pictures(test_images=45)
    labels = np.arange(45) * 7 % CLASSES_TOP5
    nine = replace(few, class_names=names, test=replace(few.test, labels=labels, class_names=names))
    found, expected = counted(nine, batch_size, devices)
    assert {name: found[name] for name in expected} == expected and found["images"] == 45
    assert 0 < expected["accuracy"] < expected["top5_accuracy"] < 1


def test_with_fewer_than_five_classes_the_top_five_hold_all():
    assert counted(pictures(), 16, 1)[0]["top5_accuracy"] == 1 and CLASSES < 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    train.run(three_phases(), workdir, devices=jax.devices()[:1])
    return workdir


@pytest.mark.parametrize("phase", ["teacher", "student", "pruned"])
@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_a_stored_accuracy_is_repeated(trained, phase, weights):
    made = three_phases()
    source = Source(phase, str(trained), weights=weights, origin=made.phase(phase))
    if weights == "ema" and phase == "teacher":
        with pytest.raises(check.ConfigError, match="a phase that kept an average"):
            train.evaluate_source(source, made)
        return
    found = train.evaluate_source(source, made)
    stored = [row for row in rows(trained, "eval") if row["phase"] == phase][-1]
    prefix = "ema_" if weights == "ema" else ""
    for name in ("accuracy", "top5_accuracy"):
        assert found[name] == stored[prefix + name]
    assert np.isclose(found["loss"], stored[prefix + "loss"], rtol=1e-5)


def test_the_summary_reports_the_last_row_and_the_best(trained):
    summary = train.run(three_phases(), trained, devices=jax.devices()[:1])["phases"]
    for name, told in summary.items():
        mine = [row for row in rows(trained, "eval") if row["phase"] == name]
        assert told["final_accuracy"] == mine[-1]["accuracy"]
        assert told["best_accuracy"] == max(row["accuracy"] for row in mine)
        assert told["holdout_accuracy"] == mine[-1]["holdout_accuracy"]
        best = [row["step"] for row in mine if row["accuracy"] == told["best_accuracy"]]
        assert told["best_step"] in best
    prunable = 3 * 3 * 3 * 4 + 4 * 4
    assert summary["pruned"]["parameters"] - summary["pruned"]["nonzero"] == prunable // 2
    assert summary["pruned"]["sparsity"] == 0.5 and summary["student"]["sparsity"] == 0.0


@pytest.mark.parametrize("test, held, asked, devices, batch", [
    (45, 0, 512, 1, 45), (45, 0, 512, 8, 48), (12, 20, 512, 8, 24), (45, 0, 16, 8, 16)])
def test_a_small_split_is_evaluated_in_one_batch_of_its_size(test, held, asked, devices, batch):
    """Of several splits in batches of one size, so that one program takes them all."""
    part = replace(phase(), evaluate_batch=asked)
    made = recipe(part, data=pictures(test_images=test, holdout_images=held))
    assert made.evaluation_batch(part, devices) == batch

"""Phases that end with several networks in one: each is told of, held-out images select."""

from dataclasses import replace
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import check, defaults, losses, method, recipe, train
from augjax.augment import plain as plain_rows
from augjax.train import Branches, evaluate, metrics, sharding, start, summary
from augjax.types import identity, Net, Outputs, View
from train.helpers import (
    CLASSES, knobs, objective, phase, pictures, plain, recipe as recipe_of, rows, saved, SHAPE,
    small,
)

COUNT = 3
ONE = jax.devices()[:1]
ASKED = tuple(("student", branch) for branch in range(COUNT))


def darker(key, batch, policies):
    """Every image in three branches, each of another brightness and BatchNorm set."""
    parts = [replace(plain(key, batch, policies), image=batch.image // (1 + 2 * branch))
             for branch in range(COUNT)]
    merged = jax.tree.map(
        lambda *leaves: jnp.stack(leaves, 1).reshape(-1, *leaves[0].shape[1:]), *parts)
    return replace(merged, views=tuple(View(f"branch{i}", domain=i) for i in range(COUNT)))


def a2(**changes):
    """A phase of 6 steps of A2-Aug, as `a2.joint` has it."""
    terms = {"ce": losses.cross_entropy(), "ensemble": losses.adaptive_ensemble()}
    made = objective(terms, {"student": small(domains=COUNT)}, views=darker)
    weigh = Branches(ASKED, lambda params: losses.ensemble_weights(params["ensemble"]))
    fields = {"knobs": knobs({"ce": float(COUNT), "ensemble": 1.0}, 0.2), "ema": 0.5,
              "branches": weigh, "optimizer": train.sgd(decay=("nets/*",)), "evaluate_epochs": 0.5}
    return phase("only", made, **{**fields, **changes})


def held_out(part):
    return recipe_of(part, data=pictures(holdout_images=36), log_every=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    return workdir, train.run(held_out(a2()), workdir, devices=ONE)["phases"]["only"]


def test_the_learnt_weights_are_in_every_row_of_the_log(trained):
    logged = rows(trained[0], "train")
    assert len(logged) == 6
    for number, row in enumerate(logged):
        a = [row[f"ensemble_weight_{i}"] for i in range(COUNT)]
        assert sum(a) == pytest.approx(1, abs=1e-6)
        assert (np.ptp(a) == 0) == (number == 0)  # of the parameters that the losses saw
        assert row["ensemble"] == pytest.approx(row["ensemble_ce"] + row["ensemble_kl"], rel=1e-5)
        assert row["loss"] == pytest.approx(COUNT * row["ce"] + row["ensemble"], rel=1e-5)


def test_every_branch_and_the_ensemble_are_evaluated_on_all_images(trained):
    workdir, _ = trained
    row = rows(workdir, "eval")[-1]
    save, data, net = saved(workdir, "only"), pictures(holdout_images=36), small(domains=COUNT)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    weigh = np.exp(save["params/terms/ensemble/mu"])
    weigh /= weigh.sum()
    assert np.ptp(weigh) > 0
    predict = jax.jit(net.predict)
    for kind, paths in (("", ("params/nets/student", "stats/student")),
                        ("ema_", ("ema/nets/student", "ema/stats/student"))):
        variables = tuple(
            jax.tree_util.tree_map_with_path(
                lambda keys, _: save["/".join([place, *(key.key for key in keys)])], shape)
            for place, shape in zip(paths, shapes))
        for split, source in (("", data.test), ("holdout_", data.holdout)):
            batch = next(evaluate.batches(source, len(source), sharding.make_mesh(ONE)))
            said = [np.asarray(predict(variables, plain_rows(batch), i).logits)
                    for i in range(COUNT)]
            said.append(sum(share * logits for share, logits in zip(weigh, said)))
            names = [*(f"branch{i}" for i in range(COUNT)), "ensemble"]
            for name, logits in zip(names, said):
                expected = np.mean(logits.argmax(1) == source.labels)
                assert row[f"{kind}{split}{name}_accuracy"] == pytest.approx(expected, abs=1e-9)
            assert row[f"{kind}{split}accuracy"] == row[f"{kind}{split}branch0_accuracy"]
    assert len({row[f"branch{i}_accuracy"] for i in range(COUNT)}) > 1
    assert {"top5_accuracy", "loss", "holdout_loss"} <= set(row)


def test_a_phase_without_a_structure_compiles_once_too(trained):
    compiled = [event["what"] for event in metrics.read_events(trained[0])
                if event["event"] == "compiled"]
    assert len(rows(trained[0], "eval")) == 2 and len(set(compiled)) == len(compiled)
    assert "evaluate" in compiled


def rewritten(trained, tmp_path, **changes):
    """What the summary would say, had the last evaluation found other numbers."""
    workdir, _ = trained
    (tmp_path / "events.jsonl").write_text((workdir / "events.jsonl").read_text())
    logged = [row | changes if row["kind"] == "eval" else row for row in metrics.read(workdir)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged))
    return summary.write(held_out(a2()), tmp_path)["phases"]["only"]


def test_held_out_images_select_and_test_images_tell(trained, tmp_path):
    tests = {f"branch{i}_accuracy": share for i, share in enumerate((0.9, 0.5, 0.7))}
    held = {f"holdout_branch{i}_accuracy": share for i, share in enumerate((0.3, 0.6, 0.6))}
    told = rewritten(trained, tmp_path, **tests, **held, ensemble_accuracy=0.8)
    assert (told["selected_branch"], told["selected_accuracy"]) == (1, 0.5)  # of equals the first
    assert told["selected_holdout_accuracy"] == 0.6 and told["ensemble_accuracy"] == 0.8
    assert [branch["accuracy"] for branch in told["branches"]] == [0.9, 0.5, 0.7]
    assert [(branch["learner"], branch["domain"]) for branch in told["branches"]] == list(ASKED)
    last = rows(trained[0], "train")[-1]
    assert [branch["weight"] for branch in told["branches"]] == [
        last[f"ensemble_weight_{i}"] for i in range(COUNT)]
    chosen = trained[1]["selected_branch"]
    assert trained[1]["selected_accuracy"] == trained[1]["branches"][chosen]["accuracy"]


def test_without_held_out_images_nothing_is_selected(trained, tmp_path):
    workdir, _ = trained
    logged = [{name: value for name, value in row.items() if not name.startswith("holdout")}
              for row in metrics.read(workdir)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged))
    (tmp_path / "events.jsonl").write_text((workdir / "events.jsonl").read_text())
    told = summary.write(held_out(a2()), tmp_path)["phases"]["only"]
    assert len(told["branches"]) == COUNT and "ensemble_accuracy" in told
    assert not [name for name in told if name.startswith("selected")]


def test_one_set_is_evaluated_by_itself(trained):
    workdir, told = trained
    source = train.Source("only", str(workdir), origin=a2())
    found = train.evaluate_source(source, held_out(a2()), domain=2)
    assert found["accuracy"] == told["branches"][2]["accuracy"]


# --- several networks, and configs --------------------------------------------------------------


def test_independent_networks_are_asked_one_by_one():
    def predict(variables, rows, domain=0):
        return Outputs(rows.image.reshape(len(rows.image), -1).astype(jnp.float32) @ variables[0])

    net, data, mesh = Net(None, None, predict), pictures(), sharding.make_mesh(ONE)
    draw, size = np.random.default_rng(1), int(np.prod(SHAPE))
    params = {name: draw.normal(size=(size, CLASSES)) for name in ("student", "net1")}
    asked = Branches((("student", 0), ("net1", 0)), lambda params: params["a"])
    judge = evaluate.make_evaluate(dict.fromkeys(params, net), identity(), asked)
    weigh = np.array([0.3, 0.7])
    found = evaluate.accuracies(
        jax.jit(judge), asked,
        ({"nets": params, "terms": {"a": weigh}}, dict.fromkeys(params, {}), {}),
        evaluate.batches(data.test, 16, mesh), mesh)
    pixels = data.test.read(np.arange(len(data.test))).reshape(len(data.test), -1)
    said = [pixels @ kernel for kernel in params.values()]
    shares = [np.mean(logits.argmax(1) == data.test.labels)
              for logits in (*said, weigh[0] * said[0] + weigh[1] * said[1])]
    assert len(set(shares)) == 3
    assert [found[f"{name}_accuracy"] for name in asked.names] == shares
    assert found["accuracy"] == shares[0] and found["top5_accuracy"] == 1


def config(**changes):
    views = {f"branch{i}": defaults.view("crop", domain=i) for i in range(2)}
    fields = {"model": defaults.model("resnet8_tiny", domains=2), "batch_size": 16, "views": views,
              "terms": {"ce": defaults.term("cross_entropy", 2.0),
                        "ensemble": defaults.term("adaptive_ensemble")}}
    return defaults.config({"student": defaults.phase(**{**fields, **changes})},
                           data={"name": "digits", "limit": 64, "image_size": 8})


def branches_of(**changes):
    (built,) = recipe.build_phases(
        recipe.expanded(config(**changes)), recipe.Pictures("digits", 10, (8, 8, 3)))
    return built.branches


def refusal(**changes):
    with pytest.raises(check.ConfigError) as caught:
        branches_of(**changes)
    return str(caught.value)


def test_which_branches_a_config_has():
    found = branches_of()
    assert found.asked == (("student", 0), ("student", 1))
    np.testing.assert_allclose(found.weights({"ensemble": {"mu": jnp.ones(2)}}), 0.5)
    both = {"student": defaults.view("crop"), "weak": defaults.view("crop", domain=1)}
    plain_terms = {"ce": defaults.term("cross_entropy")}
    assert branches_of(views=both, terms=plain_terms) == Branches(found.asked)  # AdvProp's two sets
    one = {f"branch{i}": defaults.view("crop") for i in range(2)}
    assert branches_of(model=defaults.model("resnet8_tiny"), views=one) is None  # without S-BN
    nets = {"ce": defaults.term("cross_entropy"),
            "ensemble": defaults.term("adaptive_ensemble", net=("student", "net1"))}
    peers = {"net1": defaults.peer(defaults.model("resnet8_tiny", views=("branch1",)))}
    alone = branches_of(model=defaults.model("resnet8_tiny", views=("branch0",)), views=one,
                        terms=nets, peers=peers)
    assert alone.asked == (("student", 0), ("net1", 0))


def test_branches_that_do_not_fit_are_refused_before_any_work():
    for domains in (1, 3):
        expected = f"domains: expected 2, as the views branch0, branch1 have, got {domains}"
        assert expected in refusal(model=defaults.model("resnet8_tiny", domains=domains))
    unknown = {"ensemble": defaults.term("adaptive_ensemble", 1.0, ("branch0", "brunch1"))}
    assert "Did you mean 'branch1'" in refusal(terms=unknown)
    assert "logit_scale: expected" in refusal(
        terms={"ensemble": defaults.term("adaptive_ensemble", logit_scale="mean")})
    assert "scales: expected none, or one for each of 2" in refusal(
        model=defaults.model("resnet8_tiny", domains=2, scales=(8,)))
    wrong = a2(branches=Branches((("teacher", 0),)))
    with pytest.raises(check.ConfigError, match="only.branches: .*'student', got 'teacher'"):
        train.phases.check_recipe(held_out(wrong), sharding.make_mesh(ONE))


def test_two_terms_may_not_tell_the_log_the_same():
    terms = {name: losses.adaptive_ensemble() for name in ("one", "two")}
    made = method.Objective({"student": small(domains=COUNT)}, ("student",), darker, terms)
    part = phase("only", made)
    with pytest.raises(check.ConfigError, match="metrics of an update: .*ensemble_weight_0"):
        start.shapes(part, recipe_of(part), sharding.make_mesh(ONE))

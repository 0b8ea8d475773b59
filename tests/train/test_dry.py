"""Dry runs: what a recipe would need, without data, weights or the devices."""

from dataclasses import replace
import importlib.util

from helpers import BATCH, objective, phase, recipe, small
import jax
import pytest

from augjax import check, tree, train
from augjax.train import dry


def needs(made, devices=8):
    (found,) = train.needs(made, train.make_mesh(jax.devices()[:devices]))
    return found


def test_counts_what_the_update_holds_and_does():
    found = needs(recipe(phase(ema=0.9)), devices=1)
    params, stats = jax.eval_shape(small().init, jax.random.key(0))
    assert found.parameters == tree.count(params)
    assert found.bytes["parameters"] == 4 * (tree.count(params) + tree.count(stats))
    assert found.bytes["average"] == found.bytes["parameters"]
    assert found.bytes["optimizer"] == 4 * tree.count(params)  # SGD's momentum
    assert found.bytes["teacher"] == 0 < found.bytes["activations"]
    assert found.total == sum(found.bytes.values())
    # the convolution (8 x 8 pixels, stride 2) once forward and once for its weights' gradient;
    # 2 operations for every product; the borders, the norm and the head are the rest
    convolution = 2 * 2 * 16 * 8 * 27
    assert 0.8 * convolution < found.flops_per_image < 2 * convolution


class Unreadable:
    """What the TPU compiler made of a B8 over 64 chips."""

    def as_text(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure: async-update")


def test_a_program_that_xla_cannot_read_back_is_taken_from_its_dump(tmp_path):
    with pytest.raises(jax.errors.JaxRuntimeError, match="async-update"):
        dry._text(Unreadable(), tmp_path)
    (tmp_path / "module_0000.helper.after_codegen.txt").write_text("HloModule helper")
    (tmp_path / "module_0001.step.after_codegen.txt").write_text("HloModule step, all-reduce")
    (tmp_path / "module_0001.step.before_optimizations.txt").write_text("much that is not compiled")
    assert dry._text(Unreadable(), tmp_path) == "HloModule step, all-reduce"


def test_fsdp_divides_what_divides():
    wide = objective(nets={"student": small(width=64)})
    whole, cut = (needs(recipe(phase(made=wide), fsdp=fsdp)) for fsdp in (False, True))
    assert whole.bytes["parameters"] / 8 <= cut.bytes["parameters"] < whole.bytes["parameters"] / 4
    assert cut.bytes["data"] == whole.bytes["data"]
    assert cut.parameters == whole.parameters


def test_the_largest_batch_is_near_what_fits(monkeypatch):
    made = recipe(phase(batch_size=32), resident=False)
    found = needs(made, devices=1)
    assert dry.largest_batch(found) is None  # a CPU's memory is not known
    assert "not known" in train.needs_table([found])
    room = 2 * found.total
    monkeypatch.setitem(dry.HBM, "cpu", room)
    size = dry.largest_batch(found)
    assert size > 32 and f"about {size}" in train.needs_table([found])
    larger = needs(recipe(replace(made.phases[0], batch_size=size), resident=False), devices=1)
    assert 0.7 * room < larger.total < 1.2 * room  # nearly a line
    assert dry.largest_batch(replace(found, devices=8)) == size // 8 * 8
    monkeypatch.setitem(dry.HBM, "cpu", 1)
    assert dry.largest_batch(found) == 0


def test_the_table_says_what_kind_of_number_it_holds():
    found = needs(recipe())
    assert "8 x cpu, host estimate" in train.needs_table([found])
    other = replace(found, device_kind="TPU v4")
    assert "8 x TPU v4, compiler estimates" in train.needs_table([other])


def test_what_training_would_refuse_is_refused():
    with pytest.raises(check.ConfigError, match="multiple of the 8 devices"):
        needs(recipe(phase(batch_size=BATCH + 1)))


def test_too_little_memory_is_a_sentence():
    class Lowered:
        def compile(self, options):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Ran out of memory.\nUsed 41G of 31G hbm.")

    with pytest.raises(check.ConfigError, match="Used 41G of 31G hbm.*smaller or accumulate"):
        dry._compiled(phase(), Lowered())


def test_topologies_are_named():
    with pytest.raises(check.ConfigError, match="got 'v9'"):
        train.topology_mesh("v9:2x2")
    if importlib.util.find_spec("libtpu") is None:
        with pytest.raises(check.ConfigError, match="libtpu"):
            train.topology_mesh("v5e:2x2")

"""A row in a table is all that a new part needs; numbers that make no sense are refused."""

from dataclasses import replace
import json

import jax
import numpy as np
import pytest
from test_transforms_config import PICTURES, phases_of, shown

from augjax import augment, builders, check, compress, defaults, parts, tree
from augjax.types import Transform


def scaled():
    """Shows every weight times a number."""
    return Transform(lambda params: np.float32(1), lambda params, state: jax.tree.map(
        lambda leaf: state * leaf, params))


def scale_to(factor: float):
    return lambda start: replace(start, transform={**start.transform, "scaled": np.float32(factor)})


@pytest.mark.parametrize("beside", [
    {}, {"dorefa": defaults.dorefa(32)}, {"mask": defaults.mask(0.5)},
    {"mask": defaults.mask(0.5), "dorefa": defaults.dorefa(32)},
], ids=lambda block: "+".join(block) or "alone")
def test_a_new_row_of_transforms_is_applied(monkeypatch, beside):
    plain = shown(phases_of(beside)[1])
    monkeypatch.setattr(parts, "TRANSFORMS", {"scaled": (scale_to, scaled), **parts.TRANSFORMS})
    seen = shown(phases_of({"scaled": {"factor": 3.0}, **beside})[1])
    assert any(np.any(leaf) for leaf in plain.values())
    for path, leaf in plain.items():
        np.testing.assert_array_equal(seen[path], 3 * leaf, err_msg=path)


def test_mask_and_dorefa_are_composed_as_the_spec_says(monkeypatch):
    block = {"mask": defaults.mask(0.5), "dorefa": defaults.dorefa(2)}
    phase = phases_of(block)[1]
    params = {"student": phase.objective.nets["student"].init(jax.random.key(0))[0]}
    state = phase.objective.transform.init(params)
    ours = compress.within_mask(parts.models.FULL_PRECISION)
    assert jax.tree.structure(state) == jax.tree.structure(ours.init(params))
    state["dorefa"] = compress.set_bits(state["dorefa"], 2)
    state["mask"] = compress.prune_l1(params, state["mask"], 0.5)
    for path, leaf in tree.flatten(ours.apply(params, state)).items():
        np.testing.assert_array_equal(
            tree.flatten(phase.objective.transform.apply(params, state))[path], leaf)


@pytest.mark.parametrize("rate", [
    {"learning_rate": -1.0},
    {"learning_rate": 0.1, "learning_rate_schedule": defaults.schedule("linear", stop=-0.1)},
])
def test_a_rate_below_0_is_refused(rate):
    block = defaults.phase(optimizer=defaults.optimizer(**rate))
    with pytest.raises(check.ConfigError, match="learning_rate: expected 0 or more"):
        builders.build_rate("student", block)
    still = defaults.phase(optimizer=defaults.optimizer(learning_rate=0.0))
    assert builders.build_rate("student", still) == 0.0


def test_a_replayed_policy_keeps_its_counts(tmp_path):
    path, entries = tmp_path / "schedule.json", [0.0] * 30
    path.write_text(json.dumps({
        "version": 1, "map": "autoaugment", "ops": list(augment.maps.PBA_OPS), "epochs": 1,
        "segments": [{"epochs": 1, "probabilities": entries, "levels": entries}]}))

    def counts(**options):
        block = defaults.policy("replay", schedule=str(path), **options)
        return builders.build_policy("here", block, 1, PICTURES).counts

    np.testing.assert_array_equal(counts(), augment.pba(entries, entries).counts)
    np.testing.assert_array_equal(counts(counts=(0.0, 0.0, 1.0)), np.float32([0, 0, 1]))
    with pytest.raises(check.ConfigError, match="sum to 1"):
        counts(counts=(0.5, 0.1))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x89PNG", b"", b"[", b"no json"])
def test_a_schedule_that_is_none(tmp_path, content):
    (tmp_path / "schedule.json").write_bytes(content)
    with pytest.raises(check.ConfigError):
        parts.read_schedule(str(tmp_path / "schedule.json"))

"""What a config may not ask of a pruned network, refused before anything is trained."""

import pytest

from augjax import check, compress, defaults, recipe

PICTURES = recipe.Pictures("digits", 10, (8, 8, 3))
TINY = defaults.model("resnet8_tiny")
PEERS = {"peer": defaults.peer(TINY, "phase:first")}
MASK, DEEPER = ({"mask": defaults.mask(share)} for share in (0.6, 0.8))
TABLE = defaults.schedule("table", epochs=(0.0,), points=(3.0,))
BY_SPARSITY = defaults.schedule("sparsity", sparsities=(0.0, 0.9), points=(3.0, 1.0))


def policy(moves=None):
    return {"train": defaults.view("crop", defaults.randaugment(3.0, moves))}


def built(transform=None, first=None, **second):
    """{name: phase} of one that is pruned to 0.6, or as told, and one that starts from it."""
    plain = {"model": TINY, "init": "phase:first"}
    config = defaults.config(
        {"first": defaults.phase(model=TINY, transform=MASK if first is None else first),
         "second": defaults.phase(**plain | {"transform": transform or {}} | second)},
        {"name": "digits", "image_size": 8})
    return {phase.name: phase
            for phase in recipe.build_phases(recipe.expanded(config), PICTURES)}


def refusal(*args, **fields):
    with pytest.raises(check.ConfigError) as caught:
        built(*args, **fields)
    return str(caught.value)


@pytest.mark.parametrize("fields, says", [
    ({"transform": {"mask": defaults.mask(0.4)}},
     "second.transform.mask.sparsity: expected at least 0.6, that of phase:first, got 0.4"),
    ({"transform": MASK, "repeat": {"sparsity": (0.8, 0.7)}},
     "second-2.transform.mask.sparsity: expected at least 0.8, that of phase:second-1, got 0.7"),
    ({"transform": {"mask": defaults.mask(0.4)}, "init_fresh": ("*",)}, "at least 0.6"),
])
def test_sparsities_that_fall_are_refused(fields, says):
    assert says in refusal(**fields)


def test_sparsities_that_rise_or_stay_are_built():
    assert built(DEEPER) and built(MASK) and built(MASK, init_fresh=("*",))
    assert list(built(MASK, repeat={"sparsity": (0.6, 0.6, 0.7)})) == [
        "first", "second-1", "second-2", "second-3"]
    assert built({}, init="scratch") and built({"mask": defaults.mask(0.2)}, init="scratch")


@pytest.mark.parametrize("fields", [
    {}, {"transform": {"dorefa": defaults.dorefa(2)}}, {"init_fresh": ("head/*",)},
    {"trains": ("stats/*",)}])
def test_pruned_weights_may_not_lose_their_mask(fields):
    said = refusal(**fields)
    assert "second: student: expected a mask, as phase:first is pruned to 0.6, got none" in said
    assert "transform.mask" in said and "init_fresh" in said


def test_layers_are_dropped_before_pruning():
    assert "second.init_drop: expected none, as phase:first is pruned to 0.6" in refusal(
        MASK, init_drop=("extra_*",))
    assert built(MASK, {"mask": defaults.mask(0.0)}, init_drop=("extra_*",))


def test_a_peer_has_no_mask_and_may_not_take_a_pruned_network():
    assert "second: peer: expected a mask" in refusal(MASK, peers=PEERS)
    assert built(MASK, {"mask": defaults.mask(0.0)}, peers=PEERS)


def test_without_a_mask_all_starts_anew_or_was_never_pruned():
    assert built({}, init_fresh=("*",))
    assert built({}, {"mask": defaults.mask(0.0)}) and built({}, {})


def test_what_another_run_pruned_stays_pruned(tmp_path, monkeypatch):
    """Its config is in its folder."""
    monkeypatch.setattr(recipe, "phases_of_run", lambda folder: list(built({}, MASK, **{
        "init": "scratch"}).values()))
    source = {"init": f"run:{tmp_path}#first"}
    assert f"as run:{tmp_path}#first is pruned to 0.6, got none" in refusal(**source)
    assert "at least 0.6" in refusal({"mask": defaults.mask(0.5)}, **source)
    assert built(MASK, **source) and built({}, init=f"run:{tmp_path}#second")


@pytest.mark.parametrize("fields, says", [
    ({"repeat": {"sparsity": (0.6, 0.8)}, "first": {}},
     "second.repeat.sparsity: expected a phase with a sparsity, got none. Add transform.mask."),
    ({"transform": MASK, "repeat": {"magnitude": (3.0, 2.0)}},
     "second.repeat.magnitude: expected a phase with a magnitude, got none"),
    ({"transform": MASK, "repeat": {"magnitude": (3.0, 2.0)}, "views": policy(BY_SPARSITY)},
     "second.repeat.magnitude: expected no magnitude_schedule that has values itself"),
    ({"transform": MASK, "repeat": {"magnitude": (3.0, 2.0)}, "views": policy(TABLE)},
     "got one of kind 'table'"),
    ({"transform": {"mask": {"sparsity": "a"}}, "views": policy(BY_SPARSITY)},
     "second.transform.mask.sparsity: expected a finite number"),
])
def test_a_ladder_varies_what_is_there_and_not_decided_otherwise(fields, says):
    assert says in refusal(**fields)


def test_a_ladder_of_magnitudes_that_fall_within_each_rung_is_built():
    falling = defaults.schedule("linear", stop=0.0)
    phases = built(MASK, repeat={"magnitude": (3.0, 2.0)}, views=policy(falling))
    assert list(phases) == ["first", "second-1", "second-2"]


@pytest.mark.parametrize("field", ["init_drop", "init_fresh"])
def test_from_scratch_nothing_is_left_behind_or_taken_anew(field):
    assert f"second.{field}: expected none, as the phase starts from scratch" in refusal(
        **{"init": "scratch", field: ("head/*",)})


def test_only_the_first_rung_takes_a_part():
    """The later ones start from a rung, which has no extra layers and a head of its own."""
    phases = built(MASK, {}, repeat={"sparsity": (0.6, 0.8)}, init_drop=("stem/*",),
                   init_fresh=("head/*",))
    taken = [(phase.init["student"].drop, phase.init["student"].fresh)
             for phase in list(phases.values())[1:]]
    assert taken == [(("stem/*",), ("head/*",)), ((), ())]


def test_permission_to_empty_a_layer_reaches_the_pruning_and_compiles_nothing():
    given = built({"mask": defaults.mask(0.8, empty_layers=True)})["second"]
    plain = built(DEEPER)["second"]
    assert [phase.edits for phase in (given, plain)] == [
        (compress.prune_to(0.8, empty_layers=True),), (compress.prune_to(0.8),)]
    assert given.structure == plain.structure

"""What devices send each other: read from a compiled program, and no batch among it."""

from flax import linen as nn
from helpers import BATCH, CLASSES, objective, phase, recipe, SHAPE, Small
import jax
import pytest

from augjax import augment, check, data, losses, method, models, train, tree
from augjax.train import collectives as sent
from augjax.train import dry, evaluate, population, ready, sharding, Source, start
from augjax.train.stop import Stop
from augjax.train.update import Resident
from augjax.types import Knobs, on_views, Outputs

TEXT = """
%add.1 (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.9 = f32[] add(%a, %b)
}
%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %collective-permute.1 = u8[2,8,8,3]{3,2,1,0} collective-permute(%x), channel_id=3, source_target_pairs={{0,1},{1,0}}
}
ENTRY %main (p0: f32[4]) -> f32[4] {
  %all-reduce.1 = (f32[8]{0:T(128)}, /*index=1*/bf16[3,4]{1,0}) all-reduce(%a, %b), channel_id=1, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, to_apply=%add.1, metadata={op_name="jit(step)/(a/reduce_sum)"}
  %all-gather-start.2 = (f32[4,2]{1,0}, f32[16,2]{1,0}) all-gather-start(%c), replica_groups=[2,4]<=[8], dimensions={0}, metadata={op_name="jit(step)/net/dot_general"}
  %all-gather-done.2 = f32[16,2]{1,0} all-gather-done(%all-gather-start.2)
  %reduce-scatter.3 = f32[4,2]{1,0} reduce-scatter(%d), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={1}, to_apply=%add.1
  %all-to-all.4 = pred[8,1]{1,0} all-to-all(%e), replica_groups={}
  %all-reduce.5 = f32[8]{0} all-reduce(%f), replica_groups={{0},{1}}, to_apply=%add.1
  %while.6 = (s32[], f32[4]) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"7"}}
}
"""  # noqa: E501


def test_a_program_s_text_names_its_collectives():
    permute, reduce, gather, scatter, swap = sent.collectives(TEXT, 8)  # a group of one sends none
    assert (reduce.kind, reduce.devices, reduce.bytes) == ("all-reduce", 4, 8 * 4 + 12 * 2)
    assert reduce.sent == 2 * 3 / 4 * reduce.bytes
    assert (gather.kind, gather.arrays, gather.devices) == (
        "all-gather", (("f32", (16, 2)),), 4)
    assert gather.sent == 3 / 4 * 128
    assert scatter.arrays == (("f32", (4, 8)),) and scatter.devices == 4
    assert (swap.bytes, swap.devices, swap.whole) == (8, 8, 64)
    assert (permute.times, permute.sent) == (7, 7 * 2 * 8 * 8 * 3)
    assert sent.described(reduce) == "all-reduce of f32[8] and 1 more (reduce_sum)"
    assert "u8[2,8,8,3], 7 times" in sent.described(permute)


def test_arrays_of_parameters_shapes_are_no_rows():
    state = {"kernel": jax.ShapeDtypeStruct((3, 4), "float32"),
             "norm": jax.ShapeDtypeStruct((8,), "float32")}
    kinds = [one.kind for one in sent.of_rows(sent.collectives(TEXT, 8), state, 16)]
    assert kinds == ["collective-permute", "all-gather"]  # [4, 8] is a norm's, of 4 views
    several = sent.Collective("all-reduce", (("f32", (2, 8)),), 8, 1, "")
    rows = sent.Collective("all-gather", (("f32", (17, 8)),), 8, 1, "")
    part = sent.Collective("collective-permute", (("bf16", (4, 1, 3)), ("bf16", (3, 2))), 2, 1, "")
    left = sent.of_rows((several, rows, part), state, 32)
    assert left == (rows,)  # a kernel's half is a parameter's where halves go round,
    whole = sent.Collective("all-gather", part.arrays, 2, 1, "")
    assert sent.of_rows((whole,), state, 16)[0].arrays == (("bf16", (3, 2)),)  # and nowhere else


def test_what_is_as_large_as_an_eighth_of_the_images_is_refused():
    whole = sent.Collective("all-gather", (("u8", (4, 8, 8, 3)),), 8, 1, "jit(step)/gather")
    sent.check_stays("p", [whole], 4 * 8 + 1, (8, 8, 3))
    with pytest.raises(check.ConfigError, match=r"p: rows.*of u8\[4,8,8,3\] \(gather\).*per_dev"):
        sent.check_stays("p", [whole], 4 * 8, (8, 8, 3))
    handed = sent.Collective("collective-permute", (("u8", (1, 8, 8, 3)),), 4, 1, "")
    with pytest.raises(check.ConfigError):  # in parts, a quarter on each device
        sent.check_stays("p", [handed], 4 * 8, (8, 8, 3))


# --- compiled programs ---------------------------------------------------------------------------

PIXELS = (32, 32, 3)


def needs(fsdp=False, pairs=augment.per_device, rule="per_device", policy=None):
    """Of a taught student: a policy of its weak view, CutMix of which the better half is kept."""
    net = models.from_linen(Small(16, 10), PIXELS, [0.5] * 3, [0.25] * 3)
    views = augment.make(
        {"weak": augment.pipeline(augment.flip, augment.apply_policy) if policy else augment.flip,
         "mixed": augment.Mixed("weak", augment.cutmix, pairs)}, rows={"mixed": 2})
    terms = {"ce": on_views(losses.cross_entropy(), ("weak",)),
             "kd": on_views(losses.hinton(), ("picked",))}
    made = objective(
        terms, {"student": net, "teacher": net}, views=views,
        pick=method.top(losses.kl_criterion(), ("mixed",), 0.5, rule=rule))
    policies = {"mixed": augment.beta_mixing(1.0)} | ({"weak": policy} if policy else {})
    taught = phase("student", made, frozen={"teacher": Source("teacher")},
                   knobs=Knobs(policies, {"ce": 0.1, "kd": 0.9}, 0.1))
    built = recipe(phase("teacher", objective(nets={"student": net})), taught,
                   data=data.described("cifar10"), resident=False, fsdp=fsdp)
    (found,) = train.needs(built, train.make_mesh(jax.devices()), "student")
    return found


@pytest.fixture(autouse=True)
def quickly():
    """Nothing is run here, and collectives are there before XLA's expensive passes."""
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.parametrize("fsdp, policy", [(False, augment.randaugment(9.0)), (True, None)],
                         ids=["randaugment", "fsdp"])
def test_no_batch_is_gathered(fsdp, policy):
    found = needs(fsdp, policy=policy)
    dry.check_batch_stays(found)
    (line,) = (line for line in train.needs_table([found]).splitlines() if " moves " in line)
    assert line.startswith("student moves") and line.endswith("no batch is gathered.")
    kinds = {one.kind for one in found.collectives}
    assert "all-reduce" in kinds and ("all-gather" in kinds) == fsdp  # else nothing was tested
    learnt = 4 * found.parameters
    assert sum(one.bytes for one in found.collectives if one.kind == "all-reduce") >= learnt


def stacked(members, mixed):
    """({program of so many members: its collectives}, the state of one), all under FSDP."""
    net = models.from_linen(Small(16, 10), PIXELS, [0.5] * 3, [0.25] * 3)
    policies = {"mixed": augment.beta_mixing(1.0)} if mixed else {}
    pairs = {"mixed": augment.Mixed("weak", augment.cutmix, augment.per_device)} if mixed else {}
    only = phase(made=objective(nets={"student": net},
                                views=augment.make({"weak": augment.flip, **pairs})),
                 knobs=Knobs(policies, {"ce": 1.0}, 0.1))
    built = recipe(only, data=data.described("cifar10"), fsdp=True)
    mesh = train.make_mesh(jax.devices(), members)
    run = ready.Run(built, None, mesh, Stop(), None, start.all_shapes(built, mesh))
    run.note = lambda event, **fields: None
    like, whole = run.shapes[only.name].state, sharding.replicated(mesh)

    def abstract(*shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)

    run.resident = Resident(abstract(96, *PIXELS, dtype="uint8"), abstract(96, dtype="int32"))
    counts = jax.tree.map(lambda leaf: abstract(dtype=leaf.dtype), evaluate.zeros(only.asked))
    begun = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
        (members, *leaf.shape), leaf.dtype, sharding=population._behind(leaf)),
        (counts, like.params, like.stats, like.transform))
    with jax.set_mesh(mesh):
        programs = {"step": population._stacked_step(run, only, like, {}, members, False),
                    "evaluate": population._stacked_evaluation(run, only, members, begun)}
    return {name: sent.collectives(program.as_text(), mesh.size)
            for name, program in programs.items()}, like


@pytest.mark.parametrize("members, mixed", [(8, True), (12, False)])  # on 8 x 1 devices; on 4 x 2
def test_no_batch_of_a_population_is_gathered(members, mixed):
    """Stacked convolutions are grouped ones, whose maps XLA gathers if it is left to cut them."""
    found, state = stacked(members, mixed)
    if members == 8:  # each has a device of its own
        assert found == {"step": (), "evaluate": ()}
        return
    for name, moved in found.items():
        sent.check_stays(name, sent.of_rows(moved, state, BATCH), BATCH, PIXELS)
        assert {one.kind for one in moved} == {"all-gather", "all-reduce"}
        assert {one.devices for one in moved} == {2}  # nothing goes from member to member


class Depthwise(nn.Module):
    """A convolution of each channel by itself, which XLA could cut by channels instead of rows."""

    @nn.compact
    def __call__(self, x, mode):
        x = nn.relu(nn.Conv(32, (1, 1), name="expand")(x))
        x = nn.relu(nn.Conv(32, (3, 3), feature_group_count=32, name="depthwise")(x))
        return Outputs(nn.Dense(CLASSES, name="head")(x.mean((1, 2))), {}, x.mean((1, 2)))


def test_weights_in_parts_are_gathered_and_no_map_is_sent_instead(tmp_path, monkeypatch):
    sizes, compiled = {}, ready.compiled

    def seen(shared, what, lower):
        program = compiled(shared, what, lower)
        for one in sent.collectives(program.as_text(), 8):
            sizes.setdefault(what[0], {}).setdefault(one.kind, []).append(one.bytes)
        return program

    monkeypatch.setattr(ready, "compiled", seen)
    net = models.from_linen(Depthwise(), SHAPE, [0.5] * 3, [0.25] * 3)
    made = recipe(phase(made=objective(nets={"student": net}), epochs=1), fsdp=True)
    train.run(made, tmp_path, devices=jax.devices())
    assert set(sizes["step"]) == {"all-gather", "all-reduce"} == set(sizes["evaluate"])
    parameters = 4 * tree.count(jax.eval_shape(net.init, jax.random.key(0))[0])
    assert 0.5 * parameters < sum(sizes["step"]["all-gather"]) <= parameters  # each once


def test_pairs_and_picks_over_the_whole_batch_are_found():
    found = needs(pairs=augment.whole_batch, rule="global")
    images = [one for one in found.rows if one.arrays[0][0] == "u8"]
    assert {one.kind for one in images} == {"all-gather", "all-reduce"}  # pairs; the pick
    assert all(one.bytes == BATCH * 32 * 32 * 3 for one in images)
    with pytest.raises(check.ConfigError, match="student: rows.*per_device"):
        dry.check_batch_stays(found)
    assert "the batch is gathered" in train.needs_table([found])


def test_one_device_sends_nothing():
    lone = dry.Needs("student", 1, "cpu", 16, 1, 1.0, {"activations": 1}, PIXELS, (), ())
    assert "student moves nothing" in train.needs_table([lone])
    dry.check_batch_stays(lone)

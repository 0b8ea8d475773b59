"""Distillation's steps beside what they are made of, each compiled and called alone, in turn.

The analytic cost is the sum of the parts, of so many rows each (spec B8, B9): V makes the views of
B images, T and S are forward passes of teacher and student, U updates the student by labels.

    KD step           (V + U)(B) + T(B)                V and U are one program
    CutMix-pick       V + T(3 B) + S(2 B) + U(2 B)     a weak row and two mixed, one of them kept
    teacher filter    V + T(4 B) + S(4 B) + U(B)       four views of an image, one of them kept

Other terms stand in KD's place, over the KD step. timm's step is its `LogitDistillationTask`.

Expected before measuring: KD, picks and terms of logits 1.0; above 1.15 CRD, which sorts B x 50,000
words, and on a CPU KD-SVD and MHGD, which iterate there; timm 0.5 to 0.9, as in `models`.

What came (a core of a CPU, load 1 to 3): KD 0.95 to 1.01, CutMix-pick 0.93, teacher filter 0.93,
top-k KL 1.01, similarity 1.02, attention 1.02, rkd 1.02, dkd 1.00, hint 0.93; missed: kd_svd 1.26,
mhgd 1.27, crd 1.42 (1.26 at B = 128), timm 0.87; ii_kd 1.35. At B = 128 CRD's 490 ms more were 230
of sorting, 90 of drawing, 160 of scores; KD-SVD's 500 were 160 of Gram and Schmidt and 165 of
Jacobi. At 64 pixels ours took 5 times timm's time: XLA has no fast 3x3 convolution of 2x2 maps on
a CPU (512 channels: 268 ms, of 3x3 maps 8 ms), hence the 128. On a GPU: not measured.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
import itertools
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from augjax import augment, losses, method, train, tree
from augjax import models as zoo
from augjax.train.state import TrainState
from augjax.types import Batch, Knobs, Net, on_views, Params, Rows, Stats, Term
from launch.benchmarks import measure, models, torch_steps

Call = Callable[[], Any]
CALLS = 10  # on an accelerator, before one is waited for
OPTIMIZER = train.sgd(0.9, weight_decay=5e-4)


class Pair(NamedTuple):
    """Who learns from whom, on what."""

    student: str = "resnet20"
    teacher: str = "resnet56"
    pixels: int = 32
    batch: int = 128
    classes: int = 10


class Parts(NamedTuple):
    """What an update is made of; its learners are its networks but the teacher."""

    terms: Mapping[str, Term]
    views: augment.Views
    nets: tuple[str, ...] = ("student", "teacher")
    pick: method.Pick | None = None
    policies: Mapping[str, Any] = {}


def times() -> int:
    """How often a call does what it does."""
    return 1 if models.on_cpu() else CALLS


def network(name: str, pair: Pair) -> Net:
    """The pair's teacher or student; BatchNorm by view, float32 on CPUs, bfloat16 elsewhere."""
    return zoo.build(pair.teacher if name == "teacher" else pair.student, pair.classes,
                     (pair.pixels, pair.pixels, 3), models.MEAN, models.STD, bn_per_view=True,
                     dtype=jnp.float32 if models.on_cpu() else jnp.bfloat16)


def drawn(net: Net) -> tuple[Params, Stats]:
    """Variables made on the host: a CPU compiles a ResNet-56's own beginning for 14 s."""
    def fill(path, leaf):
        if not path.endswith("kernel"):
            return np.full(leaf.shape, path.endswith(("scale", "var")), leaf.dtype)
        normal = np.random.default_rng(0).standard_normal(leaf.shape, leaf.dtype)
        return normal * float(leaf.size / leaf.shape[-1]) ** -0.5

    shapes = jax.eval_shape(net.init, jax.random.key(0))
    return jax.device_put(tuple(tree.map_with_path(fill, part) for part in shapes))


def noise(pair: Pair) -> Batch:
    """Pixels and labels that are on the device."""
    images, labels = models.noise(pair.pixels, pair.batch, pair.classes)
    return Batch(images, labels, jnp.arange(pair.batch))


def begun(pair: Pair, parts: Parts, data: Batch | Rows) -> tuple:
    """(objective, first state, frozen networks, knobs); at rate 0 networks stay what they are."""
    nets = {name: network(name, pair) for name in parts.nets}
    learners = [name for name in nets if name != "teacher"]
    objective = method.Objective(nets, tuple(learners), parts.views, parts.terms, parts.pick)
    knobs = Knobs(parts.policies, dict.fromkeys(parts.terms, 1.0), learning_rate=0.0)
    made = {name: drawn(net) for name, net in nets.items()}
    weights, stats = ({name: made[name][part] for name in learners} for part in (0, 1))
    frozen = {name: made[name] for name in objective.onlookers}
    key, looked = jax.random.key(1), SimpleNamespace(frozen=frozen, stats=stats)
    signals = jax.eval_shape(lambda: objective.see(weights, looked, data, key, knobs)[0])
    terms = jax.jit(lambda: {n: term.init(key, signals) for n, term in parts.terms.items()})()
    own, states = ({name: both[part] for name, both in terms.items()} for part in (0, 1))
    params = {"nets": weights, "terms": own}
    state = TrainState(params, stats, {}, states, OPTIMIZER.init(params), ema={}, key=key,
                       step=jnp.int32(0), meters={}, frozen={})
    return objective, state, frozen, knobs


def update(pair: Pair, parts: Parts, data: Batch | Rows | None = None) -> Call:
    """A call that updates the learners on `data`, noise unless given."""
    data = noise(pair) if data is None else data
    objective, state, frozen, knobs = begun(pair, parts, data)
    make = train.make_update(objective, OPTIMIZER)

    def step(state, frozen, data, knobs):
        after, metrics = make(replace(state, frozen=frozen), data, knobs)
        return replace(after, frozen={}), metrics

    compiled = jax.jit(step, donate_argnums=0).lower(state, frozen, data, knobs).compile()

    def call():
        nonlocal state
        for _ in range(times()):
            state, metrics = compiled(state, frozen, data, knobs)
        return jax.block_until_ready(metrics)
    return call


def repeated(work: Callable[..., Any], *arguments: Any) -> Call:
    """A call of work(key, *arguments), compiled; another key every time."""
    keys = itertools.cycle(jax.random.split(jax.random.key(1), 50))
    compiled = jax.jit(work).lower(next(keys), *arguments).compile()
    return lambda: jax.block_until_ready(
        [compiled(next(keys), *arguments) for _ in range(times())])


def forward(pair: Pair, name: str, rows: Rows, training: bool = False) -> Call:
    """A call for a network's logits of the rows, alone; `training`: with batch statistics."""
    net = network(name, pair)

    def logits(key, *seen):
        return (net.train(*seen, key)[0] if training else net.predict(*seen)).logits

    return repeated(logits, drawn(net), rows)


def timm_step(pair: Pair) -> Call:
    """A call of timm's own task, as `torch_steps.step`, with weight decay."""
    import torch

    nets = [torch_steps.network(name, pair.classes) for name in (pair.student, pair.teacher)]
    from timm.task import LogitDistillationTask  # only after torchvision, which came with those

    gpu = torch.cuda.is_available()
    torch.backends.cudnn.benchmark, device = gpu, torch.device("cuda" if gpu else "cpu")
    torch.set_num_threads(1)
    layout = torch.channels_last if gpu else torch.contiguous_format
    student, teacher = (net.to(device, memory_format=layout) for net in nets)
    task = LogitDistillationTask(
        student, teacher, torch.nn.CrossEntropyLoss(), task_loss_weight=0.1,
        distill_loss_weight=0.9, temperature=4.0, device=device, verbose=False).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4)
    batch = noise(pair)
    images = torch.tensor(np.asarray(batch.image)).to(device).permute(0, 3, 1, 2)
    labels = torch.tensor(np.asarray(batch.label)).to(device).long()
    if gpu:
        task.compile()

    def call():
        for _ in range(times()):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=gpu):
                loss = task((images - 127.5) / 63.75, labels)["loss"]
            loss.backward()
            optimizer.step()
        if gpu:
            torch.cuda.synchronize()
    return call


Made = tuple[Call, dict[str, Call]]  # the whole, made first, and its parts
CE, HINTON = losses.cross_entropy(), losses.hinton()
WEAK = augment.pipeline(augment.pad_crop(4), augment.flip)
STRONG = augment.pipeline(augment.pad_crop(4), augment.flip, augment.apply_policy)
MIXED = augment.Mixed("weak", augment.cutmix)
PLAIN = Parts({"ce": CE}, augment.make({"train": WEAK}), nets=("student",))
KD = Parts({"ce": CE, "kd": HINTON}, PLAIN.views)
FILTER = Parts(
    KD.terms, augment.make({"train": STRONG}, rows={"train": 4}),
    pick=method.best(losses.teacher_filter(), "train"),
    policies={"train": augment.ranged_randaugment(0.0, 30.0)})


def cutmix(rows: int) -> Parts:
    """CutMix-pick that keeps the better half of `rows` mixed rows of every image."""
    views = augment.make({"weak": WEAK, "mixed": MIXED}, rows={"mixed": rows})
    terms = {"ce": on_views(CE, ("weak",)), "kd": on_views(HINTON, ("weak",)),
             "kd_picked": on_views(HINTON, ("picked",))}
    return Parts(terms, views, pick=method.top(losses.kl_criterion(), ("mixed",), 0.5),
                 policies={"mixed": augment.beta_mixing()})


def shown(pair: Pair, parts: Parts) -> Rows:
    return jax.jit(parts.views)(jax.random.key(0), noise(pair), parts.policies)


def learning(pair: Pair, rows: Rows) -> Call:
    """The student's step alone, on rows that are there."""
    return update(pair, PLAIN._replace(views=lambda key, rows, policies: rows), rows)


def kd_step(pair: Pair) -> Made:
    return update(pair, KD), {"student step": update(pair, PLAIN),
                              "teacher": forward(pair, "teacher", shown(pair, KD))}


def cutmix_pick(pair: Pair) -> Made:
    parts, pool = cutmix(rows=2), augment.make({"mixed": WEAK}, rows={"mixed": 2})
    return update(pair, parts), {
        "views": repeated(parts.views, noise(pair), parts.policies),
        "teacher on 3 B": forward(pair, "teacher", shown(pair, parts)),
        "scoring of 2 B": forward(pair, "student", shown(pair, Parts({}, pool)), training=True),
        "student step on 2 B": learning(pair, shown(pair, cutmix(rows=1)))}


def teacher_filter(pair: Pair) -> Made:
    rows = shown(pair, FILTER)
    return update(pair, FILTER), {
        "views": repeated(FILTER.views, noise(pair), FILTER.policies),
        "teacher on 4 B": forward(pair, "teacher", rows),
        "scoring of 4 B": forward(pair, "student", rows),
        "student step on B": learning(pair, shown(pair, KD))}


def in_place_of_kd(term: Term) -> Callable[[Pair], Made]:
    """A step of cross-entropy and the term, over one of cross-entropy and KD."""
    return lambda pair: (update(pair, KD._replace(terms={"ce": CE, "term": term})),
                         {"KD step": update(pair, KD)})


def timm_over_ours(pair: Pair) -> Made:
    ours = KD._replace(views=augment.make({"train": augment.pipeline()}))
    return timm_step(pair), {"ours": update(pair, ours)}


def over(made: Callable[[Pair], Made], small: Pair, large: Pair = Pair(),  # noqa: B008
         cpu: float | None = None, gpu: float | None = None, at_least: float | None = None
         ) -> measure.Work:
    """A row: the whole over its parts, on a CPU for the pair `small`; `cpu`, `gpu`: at most."""
    def work(name):
        pair = small if models.on_cpu() else large
        try:
            whole, parts = made(pair)
        except ImportError as error:  # torch and timm need not be there
            return measure.unmeasured(name, str(error))

        def apart():
            for part in parts.values():
                part()

        whole(), apart()
        call_s = (measure.seconds(whole) + measure.seconds(apart)) / 2
        ratios = measure.paired_ratio(apart, whole, models.often_enough(call_s))
        calls = {"ms: whole": whole, **parts}
        spent = {part: 1000 * measure.seconds(call) / times() for part, call in calls.items()}
        said = (f"{pair.teacher} to {pair.student}, batch B = {pair.batch}, {pair.pixels} pixels",
                *(f"{part} {took:.1f}" for part, took in spent.items()), models.load())
        return measure.row(name, ratios, "times the parts' time", at_least,
                           cpu if models.on_cpu() else gpu, "; ".join(filter(None, said)))
    return lambda name: (measure.on_one_core("distill", work) if models.on_cpu() else work)(name)


TERMS = {  # {name: (a term in the place of KD, what of a KD step's time it may take)}
    "top-k KL": (losses.topk_kl(3), 1.0), "similarity": (losses.similarity(), 1.15),
    "attention": (losses.attention(), 1.15), "rkd": (losses.rkd(), 1.15),
    "kd_svd": (losses.kd_svd(), 1.15), "mhgd": (losses.mhgd(), 1.15),
    "crd": (losses.crd(images=50_000), 1.15),
    "dkd": (losses.dkd(), None), "hint": (losses.hint(), None), "ii_kd": (losses.ii_kd(), None),
}


def _rows() -> Iterator[tuple[str, measure.Work]]:
    half, fewer = Pair(batch=64), Pair(batch=32)  # on a CPU, where 128 would take minutes
    timm = {"student": "resnet18", "teacher": "resnet50", "classes": 1000}
    yield "KD step over student step + teacher", over(kd_step, half, cpu=1.05, gpu=1.02)
    yield "timm's KD step over ours", over(
        timm_over_ours, Pair(pixels=128, batch=8, **timm), Pair(pixels=224, batch=256, **timm),
        at_least=1.0)
    yield "CutMix-pick over its passes", over(cutmix_pick, fewer, cpu=1.08, gpu=1.08)
    yield "teacher filter over its passes", over(teacher_filter, fewer, cpu=1.08, gpu=1.08)
    for name, (term, most) in TERMS.items():
        small = Pair() if name == "rkd" else half  # its angles are B^3 numbers
        yield f"{name} over KD", over(in_place_of_kd(term), small, cpu=most, gpu=most)


ROWS = dict(_rows())

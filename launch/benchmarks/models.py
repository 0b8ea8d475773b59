"""Train steps of the zoo beside PyTorch's, and the forms of a depthwise convolution.

A step is normalisation, forward, backward and SGD with momentum on random uint8 pixels that are on
the device already: bfloat16 on accelerators, float32 on CPUs, there with few small images, every
row in a process with one core. Ratios are interleaved pairs in one process, both frameworks' memory
side by side. Targets are for GPUs alone; of EfficientNets users.md says why ratios and not shares
of the peak.

    python -m launch.benchmark models --json=FILE.json     writes FILE.csv too: timm's columns first

Depthwise convolutions on a CPU, milliseconds of one thread's CPU time, median of 11 calls in turn,
forward | forward and backward, float32 (in bfloat16 XLA's takes as long, ours up to twice; both sum
in float32):

                                        XLA's         shifted, by    XLA's, with    shifted, with
                                                      autodiff       its gradients  its gradients
    B0 at  64  16x32x32x32    k3       14.0 |  31.4   0.38 |  3.65   14.0 | 17.3    0.36 | 1.88
    B0 at  64  16x32x32x96    k3 s2    11.1 | 153.2   0.73 |  3.85   11.1 | 15.2    0.80 | 3.33
    B0 at  64  16x16x16x144   k3       15.6 |  49.0   0.42 |  3.83   15.6 | 19.3    0.46 | 2.14
    B0 at  64  16x16x16x144   k5 s2     6.5 | 115.2   0.40 |  7.47    6.6 | 10.2    0.36 | 1.59
    B0 at  64  16x4x4x672     k5       29.8 | 156.0   0.48 |  4.41   29.8 | 32.3    0.53 | 2.43
    B0 at  64  16x2x2x1152    k5       13.1 | 209.0   0.30 |  1.05   19.4 | 14.0    0.32 | 3.13
    B0 at 112  8x56x56x32     k3       21.1 |  47.5   0.53 |  5.47   21.1 | 26.2    0.57 | 2.97
    B0 at 112  8x14x14x240    k5       15.8 |  75.5   1.01 |  9.90   15.7 | 22.4    0.97 | 3.86
    MobileNetV2    64x16x16x48  k3     21.2 |  53.2   0.69 |  6.07   21.0 | 26.7    0.67 | 3.39
    MobileNetV2    64x16x16x48  k3 s2   5.7 |  75.6   0.69 |  2.74    5.7 |  8.6    0.66 | 1.93
    MobileNetV2    64x4x4x288   k3      8.2 |  32.8   0.30 |  1.91    8.1 | 10.2    0.33 | 1.36
    ShuffleNetV2   32x32x32x58  k3 s2  13.4 | 187.2   0.86 |  5.91   13.3 | 19.1    1.10 | 5.11
    ShuffleNetV2   32x16x16x58  k3     12.7 |  37.3   0.49 |  3.42   12.6 | 15.6    0.44 | 1.92
    ShuffleNetV2   32x8x8x116   k3      6.4 |  19.5   0.28 |  1.38    6.4 |  8.0    0.24 | 0.98

The last is `augjax.models.depthwise.SHIFTED`. Whole train steps, CPU time in ms, and of compiling
in s, with XLA's form -> shifted and fused with what reads it -> shifted and apart, as it is now:

    EfficientNet-B0, 16 images of 64 pixels    1366 -> 204 -> 174    15.0 -> 18.2 -> 18.3
    MobileNetV2-CIFAR, 64 of 32                 792 -> 204 -> 180    10.2 -> 13.5 -> 12.2
    ShuffleNetV2-CIFAR, 32 of 32               1095 -> 340 -> 320     6.4 ->  8.0 ->  7.8

Losing forms: the kernel's gradient as k * k reductions, 1 to 4 times the time of one reduction with
k * k results; that one over all axes at once, as fast, but devices gather the images for it; loops
over images or rows, up to twice as fast, but four times the time to compile; products stacked and
summed, 3 to 8 times; a product with a vector of ones, the same as reductions; the image's gradient
at stride 2 from dy with zeros between, 2 to 6 times; the same by autodiff, to 30 times at k 5. In
bfloat16 without float32 sums everything took 4 to 30 times as long.

Against PyTorch on a CPU, two runs at loads of 4 to 9 that were held to one core too late
(`measure.on_one_core`), so not to be relied on: EfficientNet-B0 0.79 and 0.87 (about 0.1 with XLA's
depthwise form, by the table above), MobileNetV2 1.5 and 0.7, WRN-28-10 0.96 and 0.88, ResNet-50 0.5
and 0.75, ResNet-20 0.46 and 0.53. On a GPU: not measured.
"""

from collections.abc import Callable, Iterator
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from augjax import augment, models, tree
from augjax.models.depthwise import depthwise, GROUPED, SHIFTED
from augjax.types import Rows, View
from launch.benchmarks import measure, torch_steps

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch wants its share of a GPU

# FLOP/s of bfloat16 without sparsity, by what jax calls a device: users.md 3a
PEAKS = {"H100 80GB HBM3": 989.4e12, "H200": 989.4e12, "A100": 312e12, "V100": 125e12,
         "TPU v3": 123e12, "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5p": 459e12}
MEAN, STD = (0.5,) * 3, (0.25,) * 3
PAIRS, STEPS = 20, 5  # pairs of calls, and train steps of a call on an accelerator


class Case(NamedTuple):
    """A network as it is measured, and beside whom."""

    model: str
    pixels: int  # a side, on an accelerator
    batches: tuple[int, ...]  # on an accelerator: the first that memory holds
    small: tuple[int, int] | None  # pixels and batch on a CPU; None where compiling takes minutes
    peer: str  # a network of torch_steps, or none
    at_least: float | None = None  # times the peer's images/s, on a GPU


CASES = (
    Case("resnet50", 224, (256,), (64, 4), "resnet50", 1.0),
    Case("efficientnet_b0", 224, (512,), (64, 8), "tf_efficientnet_b0", 0.9),
    Case("efficientnet_b4", 380, (128,), None, "tf_efficientnet_b4", 0.9),
    Case("wrn_28_10", 32, (512,), (32, 2), "wrn_28_10", 1.2),
    Case("resnet20", 32, (512,), (32, 32), "resnet20", 1.2),
    Case("efficientnet_b8", 672, (12, 8, 6, 4), None, "tf_efficientnet_b8", 0.9),
    Case("mobilenetv2", 224, (512,), (64, 8), "mobilenetv2_100"),
    Case("mobilenetv2_cifar", 32, (512,), (32, 32), ""),
    Case("shufflenetv2_cifar", 32, (512,), (32, 16), ""),
)


# --- our train step ------------------------------------------------------------------------------


class Step:
    """One jitted train step with its state, what compiling it said, and a call to time."""

    def __init__(self, name: str, pixels: int, batch: int, policy: augment.Policy | None = None):
        self.name, self.pixels, self.batch = name, pixels, batch
        self.images, self.labels = noise(pixels, batch, classes_of(name))
        net = models.build(name, classes_of(name), (pixels, pixels, 3), MEAN, STD,
                           dtype=jnp.float32 if on_cpu() else jnp.bfloat16)
        optimizer = optax.sgd(0.01, momentum=0.9)

        def begin(key):
            params, stats = net.init(key)
            return params, stats, optimizer.init(params), jnp.zeros((), jnp.int32)

        def update(state, images, labels):
            params, stats, moments, number = state
            key = jax.random.fold_in(jax.random.key(1), number)
            if policy is not None:
                images = augment.augment(key, policy, images)
            rows = Rows(images, labels, labels, jnp.ones(batch), jnp.arange(batch), (View("all"),))

            def loss(params):
                outputs, moved = net.train((params, stats), rows, key)
                return optax.softmax_cross_entropy_with_integer_labels(
                    outputs.logits, labels).mean(), moved

            (_, moved), slope = jax.value_and_grad(loss, has_aux=True)(params)
            change, moments = optimizer.update(slope, moments, params)
            return optax.apply_updates(params, change), moved, moments, number + 1

        self.state = jax.jit(begin)(jax.random.key(0))
        self.parameters = tree.count(self.state[0])
        lowered = jax.jit(update, donate_argnums=0).lower(self.state, self.images, self.labels)
        self.flops = lowered.cost_analysis()["flops"] / batch
        compiled: list[Any] = []
        self.compile_s = measure.seconds(lambda: compiled.append(lowered.compile()))
        self.compiled, = compiled

    @property
    def gigabytes(self) -> float:
        """What the program holds while it runs: arguments, results, temporaries."""
        said = self.compiled.memory_analysis()
        return (said.argument_size_in_bytes + said.output_size_in_bytes
                - said.alias_size_in_bytes + said.temp_size_in_bytes) / 1e9

    def __call__(self, steps: int | None = None) -> None:
        for _ in range(steps or steps_of_a_call()):
            self.state = self.compiled(self.state, self.images, self.labels)
        jax.block_until_ready(self.state)


def noise(pixels: int, batch: int, classes: int) -> tuple[jax.Array, jax.Array]:
    """Images [B, S, S, 3] uint8 and labels [B] on the device."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (batch, pixels, pixels, 3), np.uint8)
    return jnp.asarray(images), jnp.asarray(np.arange(batch) % classes, jnp.int32)


def classes_of(name: str) -> int:
    return 1000 if models.MODELS[name].resolution > 64 else 10


def on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def steps_of_a_call() -> int:
    return 1 if on_cpu() else STEPS


def often_enough(seconds: float) -> int:
    """How often to time what takes so long: PAIRS times, less where that is over half a minute."""
    return max(6, min(PAIRS, int(30 / seconds)))


def held(work: measure.Work) -> measure.Work:
    """A CPU's rows keep to one core, in both frameworks."""
    return lambda name: (measure.on_one_core("models", work) if on_cpu() else work)(name)


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f}" if on_cpu() else ""


def peak() -> float | None:
    """FLOP/s of this device, where it is known."""
    kind = jax.devices()[0].device_kind
    return next((value for name, value in PEAKS.items() if name in kind), None)


# --- rows of models ------------------------------------------------------------------------------

_held: dict[Case, Step] = {}  # the last network: its two rows share what was compiled


def step_of(case: Case, batch: int) -> Step:
    if case not in _held or _held[case].batch != batch:
        _held.clear()
        pixels = case.small[0] if on_cpu() else case.pixels
        _held[case] = Step(case.model, pixels, batch)
    return _held[case]


def first_that_fits(case: Case, work: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """`work` with the first of the case's batches that memory holds."""
    batches = case.small[1:] if on_cpu() else case.batches
    for batch in batches:
        try:
            return work(batch)
        except Exception as error:  # each framework has its own
            full = any(word in str(error) for word in ("RESOURCE_EXHAUSTED", "out of memory"))
            if not full or batch == batches[-1]:
                raise
            _held.clear()
    raise AssertionError("a case has a batch")


def speed(case: Case) -> measure.Work:
    """A row: images/s of our train step."""
    def work(name):
        if on_cpu() and case.small is None:
            return measure.unmeasured(name, "no GPU, and a CPU would compile it for minutes")

        def with_batch(batch):
            step = step_of(case, batch)
            step()
            calls = often_enough(measure.seconds(step))
            spent = [measure.seconds(step) / steps_of_a_call() for _ in range(calls)]
            row = measure.row(name, [batch / each for each in spent], "images/s")
            facts = columns(step, batch / row["median"])
            return row | {"note": said(step, facts), "csv": facts}

        return first_that_fits(case, with_batch)
    return work


def said(step: Step, facts: dict[str, Any]) -> str:
    """Shape, size, FLOPs and share of the peak, memory and the time to compile, in words."""
    share = facts["share_of_peak"]
    return "; ".join(filter(None, (
        f"batch {step.batch}, {step.pixels} pixels, {'float32' if on_cpu() else 'bfloat16'}",
        f"{step.parameters:,} parameters", f"{step.flops / 1e9:.2f} GFLOP an image",
        f"{share:.1%} of the peak" if share else "", f"{step.gigabytes:.2f} GB",
        f"compiled in {step.compile_s:.0f} s", load())))


def columns(step: Step, seconds: float) -> dict[str, Any]:
    """timm's columns (its results/benchmark-train-*.csv), then ours; `seconds` of a step."""
    rate = step.batch / seconds
    return {
        "model": step.name, "train_samples_per_sec": round(rate, 2),
        "train_step_time": round(1000 * seconds, 3), "train_batch_size": step.batch,
        "train_img_size": step.pixels, "param_count": round(step.parameters / 1e6, 2),
        "train_gflop_per_img": round(step.flops / 1e9, 3),
        "share_of_peak": round(rate * step.flops / peak(), 4) if peak() else "",
        "memory_gb": round(step.gigabytes, 3), "compile_s": round(step.compile_s, 1),
    }


def against(case: Case) -> measure.Work:
    """A row: PyTorch's time over ours, a train step of the same batch."""
    def work(name):
        if torch_steps.missing():
            return measure.unmeasured(name, torch_steps.missing())
        if on_cpu() and case.small is None:
            return measure.unmeasured(name, "no GPU, and a CPU would compile it for minutes")

        def with_batch(batch):
            ours = step_of(case, batch)
            theirs = torch_steps.step(case.peer, classes_of(case.model),
                                      np.asarray(ours.images), np.asarray(ours.labels),
                                      steps_of_a_call())
            ours(), theirs()  # compiles, warms up
            pairs = often_enough(measure.seconds(ours) + measure.seconds(theirs))
            ratios = measure.paired_ratio(ours, theirs, pairs)
            note = "; ".join(filter(None, (
                f"batch {batch}, {ours.pixels} pixels", f"PyTorch {torch_steps.how()}", load())))
            aim = None if on_cpu() else case.at_least
            return measure.row(name, ratios, "times PyTorch's images/s", aim, note=note)

        return first_that_fits(case, with_batch)
    return work


# --- rows of depthwise convolutions --------------------------------------------------------------

# {name: (pixels a side, channels, kernel, stride)} at B0's 224 pixels; CPUs see a quarter of a side
LAYERS = {
    "112 pixels, 32 channels, k3": (112, 32, 3, 1),
    "112 pixels, 96 channels, k3, stride 2": (112, 96, 3, 2),
    "28 pixels, 240 channels, k5": (28, 240, 5, 1),
    "14 pixels, 672 channels, k5, stride 2": (14, 672, 5, 2),
    "8 pixels, 1152 channels, k5": (8, 1152, 5, 1),
}


def layer(form: Any, shape: tuple[int, int, int, int], back: bool) -> Callable[[], None]:
    """A call of one form: forward, or forward and backward; 10 at once on an accelerator."""
    (pixels, width, size, stride), images = shape, 8 if on_cpu() else 128
    pixels = pixels // 4 if on_cpu() else pixels
    normal = np.random.default_rng(0).standard_normal
    kind = jnp.float32 if on_cpu() else jnp.bfloat16
    x = jnp.asarray(normal((images, pixels, pixels, width)), kind)
    kernel = jnp.asarray(normal((size, size, 1, width)), kind)
    pads = tuple(jax.lax.padtype_to_pads((pixels,) * 2, (size,) * 2, (stride,) * 2, "SAME"))

    def values(x, kernel):
        return depthwise(x, kernel, stride, pads, (("default", form),))

    def both_ways(x, kernel):
        y, transposed = jax.vjp(values, x, kernel)
        return y, transposed(y)

    work = jax.jit(both_ways if back else values)
    times = 1 if on_cpu() else 10
    return lambda: jax.block_until_ready([work(x, kernel) for _ in range(times)])


def shifted_over_grouped(shape: tuple[int, int, int, int], back: bool
                         ) -> measure.Work:
    """A row: the time of XLA's form over that of shifted images."""
    def work(name):
        ratios = measure.paired_ratio(layer(SHIFTED, shape, back), layer(GROUPED, shape, back),
                                      PAIRS)
        what = "8 images, a quarter of the side, float32" if on_cpu() else "128 images, bfloat16"
        return measure.row(name, ratios, "shifted, times XLA's speed",
                           note="; ".join(filter(None, (what, load()))))
    return work


def _rows() -> Iterator[tuple[str, measure.Work]]:
    for case in CASES:
        yield f"{case.model}, train step", speed(case)
        if case.peer:
            yield f"{case.model}, over {case.peer} in PyTorch", against(case)
    for name, shape in LAYERS.items():
        yield f"depthwise, {name}: forward", shifted_over_grouped(shape, back=False)
        yield f"depthwise, {name}: forward and backward", shifted_over_grouped(shape, back=True)


ROWS = {name: held(work) for name, work in _rows()}

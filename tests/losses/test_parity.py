"""The terms beside the same mathematics in PyTorch, written here, with PyTorch's derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from augjax import losses
from augjax.losses.crd import contrast_rows
from augjax.losses.hint import regressed
from augjax.losses.mhgd import init_attention, transfer_loss
from augjax.losses.kd import mean_probabilities
from losses.scene import jit, KEY, scene, signals_of

pytestmark = pytest.mark.parity

SAID = scene().outputs
LOGITS = tuple(SAID[net].logits for net in ("student", "teacher"))
POOLED = tuple(SAID[net].pooled for net in ("student", "wide"))


def maps(tap, teacher="teacher"):
    return tuple(SAID[net].features[tap] for net in ("student", teacher))


def beside(ours, theirs, inputs, rtol=1e-4, atol=1e-5):
    """Both values, and both gradients of the first input; `theirs` sees double tensors."""
    import torch

    tensors = [torch.tensor(np.asarray(x, float)) for x in inputs]
    tensors[0].requires_grad_()
    expected = theirs(*tensors)
    expected.backward()
    worth, pull = jit(jax.value_and_grad(ours))(*inputs)
    assert float(worth) == pytest.approx(expected.item(), rel=rtol)
    scale = float(tensors[0].grad.abs().max())
    np.testing.assert_allclose(pull, tensors[0].grad.numpy(), rtol=0, atol=atol * max(scale, 1))
    assert scale > 1e-5


def test_hinton_of_two_teachers_probabilities():
    import torch

    def theirs(z, a, b):
        target = (torch.softmax(a / 4, 1) + torch.softmax(b / 4, 1)) / 2
        return 16 * torch.nn.functional.kl_div(
            torch.log_softmax(z / 4, 1), target, reduction="batchmean")

    def ours(z, a, b):
        return losses.kd(z, mean_probabilities(4.0)([a, b]), 4.0, True, "kl").mean()

    beside(ours, theirs, (*LOGITS, SAID["wide"].logits))


@pytest.mark.parametrize("renormalise", [False, True])
def test_topk(renormalise):
    import torch

    def theirs(z, t):
        chosen = torch.topk(t, 3, dim=1).indices
        if renormalise:
            p, q = (torch.softmax(x.gather(1, chosen), 1) for x in (t, z))
        else:
            p, q = (torch.softmax(x, 1).gather(1, chosen) for x in (t, z))
        return (p * (p / q).log()).sum(1).mean()

    beside(lambda z, t: losses.topk_kl_rows(z, t, 3, renormalise).mean(), theirs, LOGITS)


def test_dkd():
    """The other classes by leaving the label's column out."""
    import torch

    label = np.array([0, 1, 2, 3, 4, 2])
    rest = np.array([[c for c in range(5) if c != y] for y in label])

    def theirs(z, t):
        value = 0.0
        for own in (True, False):
            p, q = (torch.softmax(x / 4, 1) for x in (t, z))
            if own:
                y = torch.tensor(label)[:, None]
                p, q = (torch.cat([x.gather(1, y), 1 - x.gather(1, y)], 1) for x in (p, q))
            else:
                p, q = (torch.softmax(x.gather(1, torch.tensor(rest)) / 4, 1) for x in (t, z))
            part = torch.nn.functional.kl_div(q.log(), p, reduction="batchmean")
            value = value + 16 * part * (1.0 if own else 8.0)
        return value

    beside(lambda z, t: losses.dkd_rows(z, t, label, 1.0, 8.0, 4.0).mean(), theirs, LOGITS)


def test_rkd():
    """Distances of pairs alone: on the diagonal a norm has no derivative that is a number."""
    import torch
    from torch.nn import functional as F

    def potential(e):
        d = (e[:, None] - e[None])[~torch.eye(len(e), dtype=bool)].norm(dim=1)
        return d / d.mean()

    def angles(e):
        v = F.normalize(e[None] - e[:, None], dim=2)
        return v @ v.transpose(1, 2)

    def theirs(e, t):
        distances = F.smooth_l1_loss(potential(e), potential(t), reduction="sum") / len(e) ** 2
        return 25 * distances + 50 * F.smooth_l1_loss(angles(e), angles(t))

    def ours(e, t):
        return 25 * losses.distance_loss(e, t, "repdistiller") + 50 * losses.angle_loss(e, t)

    beside(ours, theirs, POOLED)


def test_similarity():
    from torch.nn import functional as F

    def theirs(f, t):
        grams = [F.normalize(x.flatten(1) @ x.flatten(1).T) for x in (f, t)]
        return (grams[0] - grams[1]).pow(2).mean()

    beside(losses.similarity_loss, theirs, maps("f2", "wide"))


@pytest.mark.parametrize("sizes", [(4, 2), (2, 4), (5, 3)])
def test_attention(sizes):
    """Adaptive pooling, also where the sizes do not divide."""
    from torch.nn import functional as F

    draw = np.random.default_rng(0)
    inputs = [draw.normal(size=(3, size, size, 2)).astype(np.float32) for size in sizes]

    def theirs(f, t):
        small = (min(sizes),) * 2
        f, t = (F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), small) for x in (f, t))
        f, t = (F.normalize(x.pow(2).mean(1).flatten(1)) for x in (f, t))
        return (f - t).pow(2).mean()

    beside(lambda f, t: losses.attention_rows(f, t).mean(), theirs, inputs)


@pytest.mark.parametrize("taps", [("f2", "f3"), ("f1", "f2"), ("f2", "f1")])
def test_hint(taps):
    import torch
    from torch.nn import functional as F

    f, t = SAID["student"].features[taps[0]], SAID["teacher"].features[taps[1]]
    term = losses.hint(*taps)
    params, _ = term.init(KEY, jax.eval_shape(scene))
    kernel = torch.tensor(np.asarray(params["kernel"], float)).permute(3, 2, 0, 1)

    def theirs(f, t):
        x = f.permute(0, 3, 1, 2)
        if taps == ("f2", "f1"):  # a transposed convolution turns its kernel
            x = F.conv_transpose2d(x, kernel.flip(2, 3).transpose(0, 1), stride=2, padding=1)
        elif taps == ("f1", "f2"):
            x = F.conv2d(x, kernel, stride=2, padding=1)
        else:
            x = F.conv2d(x, kernel)
        x = F.relu(F.batch_norm(x, None, None, training=True))
        return F.mse_loss(x.permute(0, 2, 3, 1), t)

    beside(lambda f, t: jnp.mean((regressed(params, f, t.shape) - t) ** 2), theirs, (f, t))


def leading(x, count):
    """Right singular vectors by PyTorch's SVD, signed as ours."""
    import torch

    v = torch.linalg.svd(x.flatten(1, 2), full_matrices=False)[2][:, :count].transpose(1, 2)
    return v * torch.where(v.sum(1, keepdim=True) < 0, -1.0, 1.0)


def aligned(f, t):
    import torch

    v, u = leading(f, 4), leading(t, 1)
    cosine = (v.transpose(1, 2) @ u).detach()
    best = cosine.abs().argmax(1, keepdim=True)  # [R, 1, 1]
    v = v.gather(2, best.expand(-1, v.shape[1], -1)) * torch.sign(cosine.gather(1, best))
    return v, u


def test_kd_svd():
    """Each tap's gradient; f1 is tall, f2 wide."""
    import torch

    def theirs(f, t, g, s):
        relations = []
        for v, u in zip(aligned(g, s), aligned(f, t)):
            relations.append(torch.exp(-(v[:, :, None] - u[:, None]).pow(2) / 8))
        return (relations[0] - relations[1].detach()).pow(2).sum()

    def ours(f, t, g, s):
        return losses.kd_svd_rows({"f1": (f, t), "f2": (g, s)}).sum()

    inputs = (*maps("f1"), *maps("f2"))
    beside(ours, theirs, inputs, rtol=1e-3, atol=1e-3)
    beside(lambda g, s, f, t: ours(f, t, g, s), lambda g, s, f, t: theirs(f, t, g, s),
           (*inputs[2:], *inputs[:2]), rtol=1e-3, atol=1e-3)


def test_mhgd():
    """The transfer, for given attention and statistics."""
    import torch
    from torch.nn import functional as F

    draw = np.random.default_rng(0)
    params, statistics = init_attention(KEY, {"a": 3, "b": 5}, 2)
    statistics = jax.tree.map(lambda x: x + abs(draw.normal(size=x.shape)), statistics)
    inputs = [draw.normal(size=(6, width)).astype(np.float32) for width in (3, 3, 5, 5)]

    def theirs(a_s, a_t, b_s, b_t):
        def side(name, x):
            layer, kept = (jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf, float)),
                                        tree["a-b"][name]) for tree in (params, statistics))
            x = F.batch_norm(x @ layer["kernel"], kept["mean"], kept["var"], layer["scale"],
                             layer["bias"], eps=1e-3)
            return x.unflatten(1, (4, 2)).permute(2, 0, 1)

        graphs = [torch.tanh(side("sender", b) @ side("receiver", a).transpose(1, 2))
                  for a, b in ((a_s, b_s), (a_t, b_t))]
        log_s, log_t = (torch.log_softmax(graph, 2) for graph in graphs)
        return F.kl_div(log_t, log_s, reduction="sum", log_target=True)

    beside(lambda a_s, a_t, b_s, b_t: transfer_loss(
        {"a": (a_s, a_t), "b": (b_s, b_t)}, params, statistics), theirs, inputs)


def test_crd():
    """Scores of gathered rows by bmm."""
    import torch

    draw = np.random.default_rng(0)
    g, memory = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (
        draw.normal(size=(3, 4)), draw.normal(size=(9, 4))))
    lists = np.array([[0, 3, 5, 8], [1, 2, 6, 7], [4, 0, 1, 2]])  # own, negatives
    chosen = np.zeros((3, 9), np.float32)
    np.put_along_axis(chosen, lists[:, 1:], 1, axis=1)

    def theirs(g, memory):
        scores = torch.bmm(memory[torch.tensor(lists)], g[:, :, None])[..., 0]
        p = torch.exp(scores / 0.07)
        p, c = p / (p.mean() * 9).detach(), 3 / 9
        found = torch.log(p[:, 0] / (p[:, 0] + c + 1e-7)).sum()
        return -(found + torch.log(c / (p[:, 1:] + c + 1e-7)).sum()) / 3

    beside(lambda g, memory: contrast_rows(
        g, memory, jnp.asarray(lists[:, 0]), chosen, 3, jnp.float32(0), 0.07)[0].mean(), theirs,
        (g.astype(np.float32), memory.astype(np.float32)))


def test_mutual():
    import torch

    def theirs(z, t):
        p, q = torch.softmax(t, 1), torch.softmax(z, 1)
        return ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)).mean() / 2

    term = losses.mutual(form="both_ways")
    beside(lambda z, t: term.apply({}, {}, signals_of(student=z, peer=t), KEY)[0], theirs, LOGITS)

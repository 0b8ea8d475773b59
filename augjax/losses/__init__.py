"""What is minimised: Terms, and below each the pure function on arrays."""

from augjax.losses.adaptive_ensemble import (
    adaptive_ensemble, ensemble_kl, ensemble_logits, ensemble_weights,
)
from augjax.losses.attention import attention, attention_rows
from augjax.losses.crd import crd
from augjax.losses.criteria import (
    entropy_criterion, kl_criterion, teacher_disagreement, teacher_filter,
)
from augjax.losses.cross_entropy import (
    binary_cross_entropy, binary_cross_entropy_rows, cross_entropy, cross_entropy_rows,
)
from augjax.losses.dkd import dkd, dkd_rows
from augjax.losses.hint import hint
from augjax.losses.iikd import ii_kd, total
from augjax.losses.kd import hinton, kd
from augjax.losses.mhgd import mhgd
from augjax.losses.mutual import mutual
from augjax.losses.projector import projector
from augjax.losses.relational import (
    angle_loss, distance_loss, rkd, similarity, similarity_loss,
)
from augjax.losses.signals import outputs_of
from augjax.losses.svd import kd_svd, kd_svd_rows
from augjax.losses.topk import topk_kl, topk_kl_rows

__all__ = [
    "adaptive_ensemble", "angle_loss", "attention", "attention_rows", "binary_cross_entropy",
    "binary_cross_entropy_rows", "crd", "cross_entropy", "cross_entropy_rows", "distance_loss",
    "dkd", "dkd_rows", "ensemble_kl", "ensemble_logits", "ensemble_weights", "entropy_criterion",
    "hint", "hinton", "ii_kd", "kd", "kd_svd", "kd_svd_rows", "kl_criterion", "mhgd", "mutual",
    "outputs_of", "projector", "rkd", "similarity", "similarity_loss", "teacher_disagreement",
    "teacher_filter", "topk_kl", "topk_kl_rows", "total",
]

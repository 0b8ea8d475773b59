"""What is minimised: Terms, and below each the pure function on arrays."""

from augjax.losses.cross_entropy import cross_entropy, cross_entropy_rows
from augjax.losses.kd import hinton, kd
from augjax.losses.signals import outputs_of

__all__ = ["cross_entropy", "cross_entropy_rows", "hinton", "kd", "outputs_of"]

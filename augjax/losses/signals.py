"""How losses find what they score."""

from augjax import check
from augjax.types import Outputs, Signals


def outputs_of(signals: Signals, net: str, loss: str) -> Outputs:
    """What `net` said of the rows. Raises ConfigError, naming `loss`, if there is no such net."""
    return signals.outputs[check.one_of(f"network scored by {loss}", net, signals.outputs)]

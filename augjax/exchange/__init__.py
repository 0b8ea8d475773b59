"""Weights in: other people's checkpoints become run folders."""

from augjax.exchange.convert import convert, Converted, differences
from augjax.exchange.run_folder import NOT_MEASURED, PHASE, require_new, write_run
from augjax.exchange.sources import find, Foreign, SOURCES

__all__ = [
    "Converted", "Foreign", "NOT_MEASURED", "PHASE", "SOURCES", "convert", "differences", "find",
    "require_new", "write_run",
]

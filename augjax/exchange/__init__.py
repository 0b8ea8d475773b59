"""Weights in: other people's checkpoints become run folders. Models out: a run becomes a file."""

from augjax.exchange.convert import convert, Converted, differences
from augjax.exchange.export import compared, export, load
from augjax.exchange.formats import FORMATS, network, require_extra
from augjax.exchange.run_folder import NOT_MEASURED, PHASE, require_new, write_run
from augjax.exchange.sources import find, Foreign, SOURCES

__all__ = [
    "Converted", "FORMATS", "Foreign", "NOT_MEASURED", "PHASE", "SOURCES", "compared", "convert",
    "differences", "export", "find", "load", "network", "require_extra", "require_new",
    "write_run",
]

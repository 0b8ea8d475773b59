"""Eight fake CPU devices, a warm compile cache, no silent type promotion of ranks."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache/augjax/tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

CIFAR = Path(__file__).resolve().parents[2] / "shared/data/tfds"


@pytest.fixture(scope="session")
def cifar_dir():
    """The real CIFAR-10 (JPEG copy) beside the checkout; what needs it skips where it is absent."""
    if not CIFAR.is_dir():
        pytest.skip(f"real CIFAR-10 (JPEG copy) not found at {CIFAR}")
    return CIFAR

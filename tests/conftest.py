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

# Here nothing is compared with what another process compiled, and compiling costs most.
QUICKLY = (
    "losses", "method", "models", "exchange", "test_configs", "test_picks_config", "test_recipe")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Has XLA leave out its expensive passes in some rooms and files."""
    quickly = {item.path.parent.name, item.path.stem} & set(QUICKLY)
    jax.config.update("jax_disable_most_optimizations", bool(quickly))
    return (yield)


CIFAR = Path(__file__).resolve().parents[2] / "shared/data/tfds"


@pytest.fixture(scope="session")
def cifar_dir():
    """The real CIFAR-10 (JPEG copy) beside the checkout; what needs it skips where it is absent."""
    if not CIFAR.is_dir():
        pytest.skip(f"real CIFAR-10 (JPEG copy) not found at {CIFAR}")
    return CIFAR

"""Eight fake CPU devices, a warm compile cache, no silent type promotion of ranks."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import pytest  # noqa: E402

from augjax.train import ready  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache/augjax/tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Here what is compared was compiled in one way, in this process and those that it starts, and
# compiling costs most.
QUICKLY = (
    "exchange", "faults", "losses", "method", "models", "search", "study", "test_accumulate",
    "test_benchmark", "test_benchmark_compress", "test_branches", "test_checkpoint", "test_configs",
    "test_dropped", "test_elastic", "test_job_scripts", "test_killed", "test_launch",
    "test_object_store", "test_parts_tables", "test_picks_config", "test_pod_scripts",
    "test_population", "test_prepared_configs", "test_preview", "test_processes", "test_readme",
    "test_recipe", "test_refusals", "test_transforms_config")
OF_CHILDREN = "JAX_DISABLE_MOST_OPTIMIZATIONS"  # their environment
MAPS = Path("/proc/self/maps")
CROWDED = 30_000  # of the 65,530 memory maps that Linux allows; a compiled program takes several


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Has XLA leave out its expensive passes in some rooms and files, and lets go of old programs:
    those compiled the other way give other bits, and a process without a memory map left ends in
    a segmentation fault."""
    quickly = bool({item.path.parent.name, item.path.stem} & set(QUICKLY))
    if quickly != jax.config.read("jax_disable_most_optimizations"):
        ready.forget()
        jax.config.update("jax_disable_most_optimizations", quickly)
        os.environ[OF_CHILDREN] = str(int(quickly))
    result = yield
    last_of_file = nextitem is None or nextitem.path != item.path
    if last_of_file and MAPS.exists() and len(MAPS.read_bytes().splitlines()) > CROWDED:
        ready.forget()
    return result


CIFAR = Path(__file__).resolve().parents[2] / "shared/data/tfds"


@pytest.fixture(scope="session")
def cifar_dir():
    """The real CIFAR-10 (JPEG copy) beside the checkout; what needs it skips where it is absent."""
    if not CIFAR.is_dir():
        pytest.skip(f"real CIFAR-10 (JPEG copy) not found at {CIFAR}")
    return CIFAR

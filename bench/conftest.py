"""pytest-benchmark round the project's own kernels: `pytest bench/ --benchmark-only`.

CAPACITY_BENCH=full takes all cases (the default is the quick profile), CAPACITY_BENCH_THREADS sets threads (1).
Compare with `--benchmark-save=NAME` and `--benchmark-compare=NAME`; across days and busy machines compare
`extra_info.ratio_to_control`, not seconds.
"""

import os

import pytest

# What differs from minute to minute, and would make every comparison warn of another machine.
VOLATILE = ("hz_actual", "hz_actual_friendly", "hz_advertised", "hz_advertised_friendly", "count", "flags")


def pytest_benchmark_update_machine_info(config, machine_info):
    from capacity.measurement import environment

    for name in VOLATILE:
        machine_info.get("cpu", {}).pop(name, None)
    machine_info.pop("node", None)
    facts = environment.environment(threads=threads())
    machine_info["capacity"] = {name: value for name, value in facts.items() if name not in environment.VOLATILE}


def threads():
    return int(os.environ.get("CAPACITY_BENCH_THREADS", "1"))


@pytest.fixture(scope="session")
def machine():
    import torch

    from capacity.measurement import environment
    from capacity.measurement.case import Machine
    from capacity.measurement.worker import Settings, prepare

    device = "cuda" if torch.cuda.is_available() else "cpu"
    prepare(Settings(threads=threads()), device)
    return Machine(device=device, threads=threads(), cache_bytes=environment.last_cache_bytes())


@pytest.fixture(scope="session")
def laws():
    """The laws `capacity calibrate local` fitted, if it did."""
    from capacity.errors import CapacityError
    from capacity.validation.local import read_laws

    try:
        return read_laws()
    except CapacityError:
        return None

"""What is known of devices, clusters, models and electricity: data files, each number with its source, and their loaders.

A loader opens the one file it is asked for. Every loader takes `folders`, which are searched before the
shipped data and hold files of the same form; docs/catalogue.md shows how to write one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.catalogue.clusters import default_cluster, list_clusters, load_cluster
    from capacity.catalogue.devices import list_devices, load_device
    from capacity.catalogue.grids import list_grids, load_electricity_price, load_grid, load_pue
    from capacity.catalogue.models import list_models, load_model
    from capacity.catalogue.platform import list_storage, load_data_kind, load_failures, load_host, load_storage

_HOMES = {
    "default_cluster": "clusters",
    "list_clusters": "clusters",
    "list_devices": "devices",
    "list_grids": "grids",
    "list_models": "models",
    "list_storage": "platform",
    "load_cluster": "clusters",
    "load_data_kind": "platform",
    "load_device": "devices",
    "load_electricity_price": "grids",
    "load_failures": "platform",
    "load_grid": "grids",
    "load_host": "platform",
    "load_model": "models",
    "load_pue": "grids",
    "load_storage": "platform",
}

__all__ = [
    "default_cluster",
    "list_clusters",
    "list_devices",
    "list_grids",
    "list_models",
    "list_storage",
    "load_cluster",
    "load_data_kind",
    "load_device",
    "load_electricity_price",
    "load_failures",
    "load_grid",
    "load_host",
    "load_model",
    "load_pue",
    "load_storage",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'capacity.catalogue' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"capacity.catalogue.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

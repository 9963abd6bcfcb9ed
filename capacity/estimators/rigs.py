"""A device in its usual node with its kernel profile, and the devices an answer is compared with."""

from __future__ import annotations

from capacity.laws.profile import load_profile
from capacity.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from capacity.laws.profile import Profile
    from capacity.spec.device import Cluster

# What people weigh a choice against, by the kind of machine they asked about.
_DATA_CENTRE = ("a100-sxm-80gb", "h100-sxm", "b200", "mi300x")
_DESK = ("rtx-3090", "rtx-4090", "rtx-5090", "apple-m4-max-40")
_SMALL = ("raspberry-pi-5", "jetson-orin-nano-super-8gb", "jetson-agx-orin-64gb", "apple-m4")
_RIVALS = {"consumer": _DESK, "workstation": _DESK, "laptop": _DESK, "embedded": _SMALL, "phone": _SMALL}

_rigs: dict[tuple[str, tuple[str, ...]], tuple[Cluster, Profile]] = {}


def rig(name: str, folders: tuple[str, ...] = ()) -> tuple[Cluster, Profile]:
    """One node of a device and its profile; each is read once a process."""
    key = (name, folders)
    if key not in _rigs:
        from capacity.catalogue.clusters import default_cluster
        from capacity.catalogue.devices import load_device

        device = load_device(name, folders)
        _rigs[key] = (default_cluster(device, folders=folders), load_profile(device))
    return _rigs[key]


def rivals(cluster: Cluster, profile: Profile, folders: tuple[str, ...] = ()) -> Iterator[tuple[Cluster, Profile]]:
    """The devices to compare with, the asked one among them, under the same roof (PUE, grid)."""
    names = _RIVALS.get(cluster.device.segment, _DATA_CENTRE)
    for name in names if cluster.device.id in names else (*names, cluster.device.id):
        if name == cluster.device.id:
            yield cluster, profile
            continue
        other, other_profile = rig(name, folders)
        yield (
            replace(
                other, pue=cluster.pue, grid_g_per_kwh=cluster.grid_g_per_kwh, nvme_bytes_per_s=cluster.nvme_bytes_per_s
            ),
            other_profile,
        )

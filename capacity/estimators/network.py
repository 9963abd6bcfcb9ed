"""What a device can send: inside its node and beyond, after the shares that collectives reach."""

from __future__ import annotations

from capacity import ops
from capacity.formulas import collectives, traffic
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.laws.profile import Profile
    from capacity.spec.device import Cluster


# One PCIe 4.0 drive a device, which reads 6.5 GB/s and writes 3.5: as much of each.
NVME_BYTES_PER_S_PER_DEVICE = 4.5e9


class Network(Record):
    """Bandwidths and latencies of a device, inside its node and beyond; nvme: its share of the node's drives."""

    devices_per_node: float
    intra_bytes_per_s: float
    intra_latency_s: float
    inter_bytes_per_s: float
    inter_latency_s: float
    base_latency_s: float
    nvme_bytes_per_s: float = NVME_BYTES_PER_S_PER_DEVICE

    @classmethod
    def of(cls, cluster: Cluster, profile: Profile) -> Network:
        """The network of a cluster under a profile; a device without links has only its host's adapter."""
        inter = cluster.inter
        intra = cluster.device.link or inter
        per_node = cluster.devices_per_node * 1.0
        drives = (cluster.nvme_bytes_per_s or NVME_BYTES_PER_S_PER_DEVICE * per_node) / per_node
        if intra is None:
            return cls(per_node, 16e9, 1e-5, 3e9, 2e-5, profile.link_base_latency_s, drives)
        inter = inter or intra
        return cls(
            per_node,
            intra.bytes_per_s * profile.link_share,
            intra.latency_s,
            inter.bytes_per_s * profile.inter_share,
            inter.latency_s,
            profile.link_base_latency_s,
            drives,
        )

    def pace(self, ranks: float, stride: float) -> tuple[float, float]:
        """Bandwidth and step latency of a group of `ranks` devices, `stride` apart."""
        in_node = ops.maximum(self.devices_per_node / stride, 1.0)
        bandwidth = collectives.group_bytes_per_s(ranks, in_node, self.intra_bytes_per_s, self.inter_bytes_per_s)
        inside = ranks <= in_node
        return bandwidth, ops.where(inside, self.intra_latency_s, self.inter_latency_s)

    def ring_s(self, message_bytes: float, ranks: float, stride: float, passes: float) -> float:
        """A ring collective of a group."""
        bandwidth, latency = self.pace(ranks, stride)
        return collectives.ring_time_s(message_bytes, ranks, passes, bandwidth, latency, self.base_latency_s)

    def all_to_all_s(self, message_bytes: float, ranks: float, stride: float) -> float:
        """Each device of a group hands every other its share of a buffer."""
        bandwidth, latency = self.pace(ranks, stride)
        return collectives.all_to_all_time_s(message_bytes, ranks, bandwidth, latency, self.base_latency_s)

    def routing_s(self, token_bytes: float, active: float, ranks: float, stride: float, reach: float) -> float:
        """Sending every token to its `active` experts over `ranks` devices, `stride` apart.

        Between nodes a token travels once to each node that holds some of its experts, at most `reach`, and is handed on
        inside.
        """
        in_node = ops.maximum(self.devices_per_node / stride, 1.0)
        inside = ranks <= in_node
        near = far = 0.0
        if ops.anywhere(inside):
            near = collectives.all_to_all_time_s(
                token_bytes * active, ranks, self.intra_bytes_per_s, self.intra_latency_s, self.base_latency_s
            )
        if ops.anywhere(ranks > in_node):
            nodes = ops.maximum(ranks / in_node, 1.0)
            visited = ops.minimum(traffic.experts_touched(nodes, 1.0, active), reach)
            far = collectives.all_to_all_time_s(
                token_bytes * visited, nodes, self.inter_bytes_per_s, self.inter_latency_s, self.base_latency_s
            )
        return ops.where(inside, near, far)

"""What a device can send: inside its node and beyond, after the shares that collectives reach."""

from __future__ import annotations

from capacity import ops
from capacity.formulas import collectives, traffic
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.laws.profile import Profile
    from capacity.spec.device import Cluster


# One PCIe 4.0 drive a device (samsung2020), which reads 6.5 GB/s and writes 3.5: as much of each.
NVME_BYTES_PER_S_PER_DEVICE = 4.5e9


# Of a link's bandwidth, what an all-reduce reaches that switches add up (NVLS): large messages on 8 devices, NCCL 2.29.
_SWITCHED = {"hopper": 0.5, "blackwell": 0.41, "blackwell-ultra": 0.41}


class Network(Record):
    """Bandwidths and latencies of a device, inside its node and beyond; nvme: its share of the node's drives.

    switch: of an all-reduce that the node's switches add up (0: they do not); trees: whether the library builds them
    between nodes; reduces_between: whether switches between nodes add up.
    """

    devices_per_node: float
    intra_bytes_per_s: float
    intra_latency_s: float
    inter_bytes_per_s: float
    inter_latency_s: float
    base_latency_s: float
    nvme_bytes_per_s: float = NVME_BYTES_PER_S_PER_DEVICE
    switch_bytes_per_s: float = 0.0
    trees: bool = True
    reduces_between: bool = False

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
            intra.bytes_per_s * _SWITCHED.get(cluster.device.architecture, 0.0) if "NVLink" in intra.name else 0.0,
            cluster.device.kind != "TPU",
            "SHARP" in inter.name,
        )

    def pace(self, ranks: float, stride: float) -> tuple[float, float]:
        """Bandwidth and step latency of a group of `ranks` devices, `stride` apart."""
        in_node = ops.maximum(self.devices_per_node / stride, 1.0)
        bandwidth = collectives.group_bytes_per_s(ranks, in_node, self.intra_bytes_per_s, self.inter_bytes_per_s)
        nodes = ops.maximum(ranks / in_node, 1.0)
        latency = collectives.step_latency_s(ranks, nodes, self.intra_latency_s, self.inter_latency_s)
        return bandwidth, latency

    def ring_s(self, message_bytes: float, ranks: float, stride: float, passes: float) -> float:
        """A ring collective of a group."""
        bandwidth, latency = self.pace(ranks, stride)
        return collectives.ring_time_s(message_bytes, ranks, passes, bandwidth, latency, self.base_latency_s)

    def all_reduce_s(self, message_bytes: float, ranks: float, stride: float) -> float:
        """An all-reduce of a group, by the algorithm that is fastest for its size, as libraries choose.

        NCCL and RCCL have rings, double trees between nodes and, where its switches add numbers up, the node's; XLA rings
        and rings of both dimensions of a torus. Switches between nodes reduce where the network's name says SHARP.
        """
        fastest = self.ring_s(message_bytes, ranks, stride, 2.0)
        in_node = ops.minimum(ops.maximum(self.devices_per_node / stride, 1.0), ranks)
        nodes = ops.maximum(ranks / in_node, 1.0)
        bandwidth, _ = self.pace(ranks, stride)
        latencies = (self.intra_latency_s, self.inter_latency_s, self.base_latency_s)
        far = nodes > 1.0
        if ops.anywhere(far):
            if self.trees:
                tree = collectives.tree_time_s(message_bytes, in_node, nodes, bandwidth, *latencies)
                fastest = ops.where(far, ops.minimum(fastest, tree), fastest)
            if self.reduces_between or not self.trees:
                passes = 1.0 if self.reduces_between else 2.0
                paces = (self.intra_bytes_per_s, self.inter_bytes_per_s)
                both = collectives.hierarchical_time_s(message_bytes, in_node, nodes, *paces, *latencies, passes)
                fastest = ops.where(far, ops.minimum(fastest, both), fastest)
        if self.switch_bytes_per_s and ops.anywhere(nodes == 1.0):
            added = collectives.switch_time_s(
                message_bytes, self.switch_bytes_per_s, self.intra_latency_s, self.base_latency_s
            )
            fastest = ops.where((nodes == 1.0) & (ranks > 1.0), ops.minimum(fastest, added), fastest)
        return fastest

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

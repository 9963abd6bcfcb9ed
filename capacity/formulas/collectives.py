"""Time of moving bytes between devices."""

from capacity import ops
from capacity.formula import formula


@formula(unit="s", symbol="t_ring", cite="patarasuk2009; NCCL ring")
def ring_time_s(
    message_bytes: float,
    ranks: float,
    passes: float,
    bytes_per_s: float,
    latency_s: float,
    base_latency_s: float = 0.0,
) -> float:
    """A ring collective over `ranks` devices.

    1. Each device sends (ranks - 1) / ranks of the message, `passes` times (2 all-reduce, 1 all-gather or reduce-scatter).
    2. Each of passes x (ranks - 1) steps costs a latency; starting costs base_latency_s.
    Valid for: any size; one rank moves nothing.
    """
    steps = passes * (ranks - 1.0)
    moved = message_bytes * passes * (ranks - 1.0) / ranks
    return ops.where(ranks > 1.0, base_latency_s + steps * latency_s + moved / bytes_per_s, 0.0 * base_latency_s)


@formula(unit="s", symbol="t_a2a")
def all_to_all_time_s(
    message_bytes: float, ranks: float, bytes_per_s: float, latency_s: float, base_latency_s: float = 0.0
) -> float:
    """Each device sends every other its share: (ranks - 1) / ranks of its buffer leaves it."""
    moved = message_bytes * (ranks - 1.0) / ranks
    steps = ranks - 1.0
    return ops.where(ranks > 1.0, base_latency_s + steps * latency_s + moved / bytes_per_s, 0.0 * base_latency_s)


@formula(unit="byte/s", symbol="B_grp")
def group_bytes_per_s(
    ranks: float,
    ranks_per_node: float,
    intra_bytes_per_s: float,
    inter_bytes_per_s: float,
) -> float:
    """Bandwidth per device of a group that may leave its node.

    1. Inside a node: the intra-node link.
    2. Beyond it a ring crosses the node border once per node, so all adapters of the group's devices in a
       node carry it together: ranks_per_node x inter, never more than the intra-node link.
    """
    across = ops.minimum(intra_bytes_per_s, inter_bytes_per_s * ranks_per_node)
    return ops.where(ranks > ranks_per_node, across, intra_bytes_per_s)


@formula(unit="s", symbol="t_p2p")
def point_to_point_time_s(message_bytes: float, bytes_per_s: float, latency_s: float) -> float:
    """One message between neighbours."""
    return latency_s + message_bytes / bytes_per_s

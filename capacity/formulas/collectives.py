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


@formula(unit="s", symbol="\\alpha", cite="nccl2024")
def step_latency_s(ranks: float, nodes: float, intra_latency_s: float, inter_latency_s: float) -> float:
    """Mean latency of a step of a ring that passes every node once: nodes of its steps leave one."""
    inside = (ranks - nodes) * intra_latency_s
    return (inside + (nodes - 1.0) * inter_latency_s) / ops.maximum(ranks - 1.0, 1.0)


@formula(unit="s", symbol="t_tree", cite="sanders2009, nccl2024")
def tree_time_s(
    message_bytes: float,
    ranks_per_node: float,
    nodes: float,
    bytes_per_s: float,
    intra_latency_s: float,
    inter_latency_s: float,
    base_latency_s: float = 0.0,
    tree_share: float = 0.9,
) -> float:
    """An all-reduce over two binary trees of nodes, chains inside them.

    1. The message goes up and comes down once; both trees together use links both ways, at `tree_share` of a ring's pace.
    2. Each way is a chain through a node and log2(nodes) hops between nodes.
    """
    hops = (ranks_per_node - 1.0) * intra_latency_s + ops.log(nodes) / ops.log(2.0) * inter_latency_s
    return base_latency_s + 2.0 * hops + 2.0 * message_bytes / (tree_share * bytes_per_s)


@formula(unit="s", symbol="t_2D", cite="cho2019")
def hierarchical_time_s(
    message_bytes: float,
    ranks_per_node: float,
    nodes: float,
    intra_bytes_per_s: float,
    inter_bytes_per_s: float,
    intra_latency_s: float,
    inter_latency_s: float,
    base_latency_s: float = 0.0,
    passes: float = 2.0,
) -> float:
    """An all-reduce in two dimensions: scattered inside a node, reduced between like ranks of nodes, gathered inside.

    1. Inside, (ranks - 1) / ranks of the message is sent each way; between nodes a rank's share of it, over its own adapter.
    2. passes: 2 (nodes - 1) / nodes of the share between nodes on a ring, or 1 where switches reduce it on its way.
    3. Pieces follow each other, so that the slower of both dimensions sets the pace.
    """
    inside = 2.0 * (ranks_per_node - 1.0) / ranks_per_node * message_bytes / intra_bytes_per_s
    between = passes * (nodes - 1.0) / nodes * message_bytes / ranks_per_node / inter_bytes_per_s
    hops = 2.0 * (ranks_per_node - 1.0) * intra_latency_s + passes * (nodes - 1.0) * inter_latency_s
    return base_latency_s + hops + ops.maximum(inside, between)


@formula(unit="s", symbol="t_switch", cite="klenk2020, nccl2024")
def switch_time_s(message_bytes: float, bytes_per_s: float, latency_s: float, base_latency_s: float = 0.0) -> float:
    """An all-reduce by switches inside a node: every device sends the message once and receives the sum once, at a time."""
    return base_latency_s + 2.0 * latency_s + message_bytes / bytes_per_s


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

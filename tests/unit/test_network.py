"""Collectives by algorithm and size: what libraries choose from, and that the fastest is taken."""

from __future__ import annotations

import pytest

from capacity.catalogue import load_device
from capacity.catalogue.clusters import default_cluster
from capacity.estimators.network import Network
from capacity.formulas import collectives
from capacity.laws.profile import load_profile
from capacity.record import replace


def network(name, nodes=64, **changes):
    device = load_device(name)
    cluster = replace(default_cluster(device), nodes=nodes)
    return replace(Network.of(cluster, load_profile(device)), **changes)


class TestAlgorithms:
    def test_trees_reach_many_nodes_in_few_hops(self):
        """Sanders 2009: latency grows with the logarithm of the nodes, traffic is that of a ring but for its own share."""
        near, far = (collectives.tree_time_s(0.0, 8.0, nodes, 1e10, 1e-6, 5e-6) for nodes in (16.0, 256.0))
        assert near == pytest.approx(2 * (7e-6 + 4 * 5e-6))
        assert far - near == pytest.approx(2 * 4 * 5e-6)
        assert collectives.tree_time_s(9e9, 8.0, 16.0, 1e10, 0.0, 0.0) == pytest.approx(2.0)

    def test_two_dimensions_send_a_share_between_nodes(self):
        """Cho 2019: 7/8 of the message inside each way, an eighth between nodes twice."""
        time = collectives.hierarchical_time_s(8e9, 8.0, 1e9, 1e11, 1e10, 0.0, 0.0)
        assert time == pytest.approx(max(2 * 7e9 / 1e11, 2 * 1e9 / 1e10))

    def test_a_ring_leaves_a_node_once(self):
        assert collectives.step_latency_s(8.0, 1.0, 1e-6, 5e-6) == pytest.approx(7.0 / 7.0 * 1e-6)
        assert collectives.step_latency_s(64.0, 8.0, 1e-6, 5e-6) == pytest.approx((56e-6 + 7 * 5e-6) / 63)

    def test_switches_that_add_halve_the_traffic_of_a_ring(self):
        assert collectives.switch_time_s(1e9, 1e11, 1e-6) == pytest.approx(0.01 + 2e-6)


class TestChoice:
    def test_the_fastest_is_taken(self):
        wires = network("a100-sxm-80gb")
        for message in (1e3, 1e6, 1e9):
            assert wires.all_reduce_s(message, 512.0, 1.0) <= wires.ring_s(message, 512.0, 1.0, 2.0)

    def test_small_messages_take_trees_and_large_ones_rings(self):
        wires = network("a100-sxm-80gb")
        ringed = replace(wires, trees=True)
        bare = [wires.ring_s(message, 512.0, 1.0, 2.0) for message in (1e4, 1e10)]
        best = [ringed.all_reduce_s(message, 512.0, 1.0) for message in (1e4, 1e10)]
        assert best[0] < 0.3 * bare[0]
        assert best[1] == bare[1]

    def test_large_messages_in_a_hopper_node_are_added_by_its_switches(self):
        """8 H100 under NCCL 2.29: 391 GB/s of bus bandwidth for large messages, of 450; 4 reach 343."""
        wires = network("h100-sxm")
        bus = [2 * (n - 1) / n * 1e9 / wires.all_reduce_s(1e9, n, 1.0) / 1e9 for n in (8.0, 4.0)]
        assert bus[0] == pytest.approx(391.0, rel=0.03)
        assert bus[1] == pytest.approx(343.0, rel=0.03)
        assert wires.all_reduce_s(1e9, 8.0, 1.0) < wires.ring_s(1e9, 8.0, 1.0, 2.0)
        assert network("a100-sxm-80gb").switch_bytes_per_s == 0.0

    def test_switches_between_nodes_halve_what_crosses_them(self):
        plain, sharp = (
            network("h100-sxm", reduces_between=one).all_reduce_s(1e10, 512.0, 1.0) for one in (False, True)
        )
        assert sharp < 0.75 * plain

    def test_a_torus_takes_both_dimensions(self):
        assert not network("tpu-v5p").trees

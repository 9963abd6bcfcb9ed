"""Frozen records shared by every floor: what a model, workload, plan, device, cluster, op and estimate are.

Base SI inside (s, byte, FLOP, W, J), the unit in the name; a numeric field may hold a float or a
NumPy column wherever a sweep puts one.
"""

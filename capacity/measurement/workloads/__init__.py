"""Whole workloads: training steps of several families, and compressed inference. They are measured, never fitted on."""

from capacity.measurement.workloads import distributed, inference, runtime, training

ALL = (*training.FAMILIES, *distributed.FAMILIES, *inference.FAMILIES, *runtime.FAMILIES)

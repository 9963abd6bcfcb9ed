"""Kernels: each module declares families of cases; the same code runs on a CPU and on CUDA.

Modules import torch only to build a case, so listing them costs nothing.
"""

from capacity.measurement.kernels import (
    anchor,
    attention,
    collective,
    convolution,
    dispatch,
    gemm,
    memory,
    optimizer,
    quantised,
    rowwise,
    sparse,
    transfer,
)

ALL = (
    *gemm.FAMILIES,
    *quantised.FAMILIES,
    *sparse.FAMILIES,
    *attention.FAMILIES,
    *rowwise.FAMILIES,
    *convolution.FAMILIES,
    *optimizer.FAMILIES,
    *memory.FAMILIES,
    *dispatch.FAMILIES,
    *transfer.FAMILIES,
    *collective.FAMILIES,
    *anchor.FAMILIES,
)

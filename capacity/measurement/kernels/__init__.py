"""Kernels: each module declares families of cases; the same code runs on a CPU and on CUDA.

Modules import torch only to build a case, so listing them costs nothing.
"""

from capacity.measurement.kernels import (
    anchor,
    attention,
    collective,
    convolution,
    crypto,
    dispatch,
    embedding_bag,
    gemm,
    memory,
    optimizer,
    preparation,
    quantised,
    recurrent,
    rowwise,
    sparse,
    step,
    storage,
    transfer,
)

ALL = (
    *gemm.FAMILIES,
    *quantised.FAMILIES,
    *sparse.FAMILIES,
    *attention.FAMILIES,
    *rowwise.FAMILIES,
    *convolution.FAMILIES,
    *recurrent.FAMILIES,
    *embedding_bag.FAMILIES,
    *optimizer.FAMILIES,
    *memory.FAMILIES,
    *dispatch.FAMILIES,
    *step.FAMILIES,
    *transfer.FAMILIES,
    *collective.FAMILIES,
    *anchor.FAMILIES,
    *storage.FAMILIES,
    *crypto.FAMILIES,
    *preparation.FAMILIES,
)

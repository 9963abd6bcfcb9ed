"""Work and traffic of linear attention and state-space layers."""

from capacity.errors import InputError


def counted_scan_flop(
    form: str,
    sequences: float,
    queries: float,
    heads: float,
    key_size: float,
    value_size: float,
    groups: float,
    chunk: float,
) -> float:
    """FLOPs of the matrix products in the reference (chunked, PyTorch) form of a recurrence."""
    raise InputError(f"no FLOP count for recurrence {form!r}")

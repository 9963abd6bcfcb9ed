"""What it costs to rent or own the machines."""

from capacity.formula import formula


@formula(unit="USD", symbol="K")
def rental_usd(usd_per_device_s: float, devices: float, duration_s: float) -> float:
    """Rent of all devices for the whole time; cloud prices include power and cooling."""
    return usd_per_device_s * devices * duration_s


@formula(unit="USD", symbol="K_tok")
def usd_per_token(usd_per_device_s: float, devices: float, tokens_per_s: float) -> float:
    """Money per token at a steady rate."""
    return usd_per_device_s * devices / tokens_per_s

"""What fits one screen: which quantities are shown first, in which order, under which short label."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from capacity.spec.estimate import Assumption, Estimate, Quantity

# Left: the work, counted. Right: what comes of it, estimated. A name a section lacks is passed over.
COUNTED = {
    "flop_per_token": "FLOPs a token",
    "flop_per_request": "FLOPs a request",
    "flop_per_image": "FLOPs an image",
    "flop_per_sample": "FLOPs a sample",
    "flop_total": "FLOPs in all",
    "arithmetic_intensity": "Intensity",
    "ridge_point": "Ridge point",
    "bandwidth_share": "Bandwidth used",
    "memory_traffic_per_step": "Memory traffic",
    "network_traffic_per_step": "Network a step",
    "kernels": "Kernels a step",
    "kv_bytes_per_token": "KV a token",
    "checkpoint": "Checkpoint",
    "dataset": "Dataset",
    "most_concurrent": "Most requests",
    "longest_context": "Longest context",
    "replicas": "Replicas",
    "service_devices": "Devices, N+1",
    "requests_per_s_per_replica": "Rate a replica",
    "concurrency_per_replica": "Requests a replica",
    "utilisation_of_day": "Day's utilisation",
    "cold_start": "Cold start",
    "held_share": "Enough are up",
    "rolling_update": "Renewing all",
    "dataset_collected": "Collected",
    "dataset_prepared": "Prepared",
    "checkpoints_held": "Checkpoints",
    "stored": "On disks",
    "storage_units": "Units",
    "shuffled": "Shuffled",
    "saves": "Saves",
    "written_per_day": "Written a day",
    "data_keys": "Data keys",
    "weights_stored": "Weights",
    "kv_kept": "Keys and values",
    "kv_write": "Written",
    "kv_read": "Read again",
}
ESTIMATED = {
    "step_time": "Step",
    "run_time": "Run",
    "evaluation_time": "Evaluation",
    "ramp_time": "Batch ramp",
    "ttft": "First token",
    "tpot": "Next token",
    "latency": "A batch",
    "requests_per_s": "Requests a second",
    "images_per_s": "Images a second",
    "samples_per_s": "Samples a second",
    "tokens_per_s": "Tokens a second",
    "mfu": "MFU",
    "energy": "Energy",
    "energy_per_token": "Energy a token",
    "energy_per_request": "Energy a request",
    "energy_per_image": "Energy an image",
    "energy_per_million_samples": "Energy a M samples",
    "carbon": "Carbon",
    "carbon_per_million_tokens": "Carbon a M tokens",
    "carbon_per_million_requests": "Carbon a M requests",
    "carbon_per_million_images": "Carbon a M images",
    "carbon_per_million_samples": "Carbon a M samples",
    "cost": "Cost",
    "cost_per_million_tokens": "Cost a M tokens",
    "cost_per_million_requests": "Cost a M requests",
    "cost_per_million_images": "Cost a M images",
    "cost_per_million_samples": "Cost a M samples",
    "fewest_devices": "Fewest devices",
    "ttft_at_percentile": "First, percentile",
    "tpot_at_percentile": "Next, percentile",
    "cost_per_million_input_tokens": "Input, a M tokens",
    "cost_per_million_output_tokens": "Output, a M tokens",
    "cost_per_day": "Cost a day",
    "feed": "Feed",
    "loader_cores_per_device": "Loader cores",
    "save_time": "Save",
    "save_stall": "Stall",
    "save_interval": "Every",
    "load_time": "Load",
    "preparation": "Core hours",
    "preparation_time": "Preparation",
    "failure_interval": "Job's MTBF",
    "weights_load": "Weights come",
    "start_time": "A replica starts",
    "kv_reload_time": "Reload a prompt",
    "kv_recompute_time": "Or read it again",
    "tls_cores": "TLS cores",
    "confidential_tpot": "Closed: token",
    "confidential_slowdown": "Closed: slower",
    "confidential_tokens_per_s": "Closed: tokens",
    "recovery_time": "Back after",
    "kept_time": "Goodput",
    "spares_needed": "Spares needed",
    "step_slowdown": "Slower steps",
    "cipher_cores": "Cipher cores",
    "storage_cost": "Storage",
}
# Rows of a section's table that a screen shows, where they are not the usual few.
ROWS = {"Deployment": 12, "Platform": 4}
# What the memory bar and the line below it show already.
DEVICE_MEMORY = "device_memory"
RECOMPUTATION = {
    "activations_without_recomputation": "activations {}",
    "activations_with_selective_recomputation": "selective recomputation {}",
    "activations_with_full_recomputation": "full {}",
}
# Facts of a model in its first line, and how each is said.
FACTS = {
    "parameters": "{} parameters",
    "active_parameters": "{} active",
    "layers": "{} layers",
    "ops": "{} kernels forward",
    "hidden": "{} wide",
}
# How much an assumption matters where no sensitivity says: what the user gave is echoed, guesses are owned up to.
_TAG_WEIGHT = {"user": 0.05, "default": 0.03, "inferred": 0.02, "measured": 0.01}


def chosen(quantities: dict[str, Quantity], labels: dict[str, str]) -> list[tuple[str, Quantity]]:
    """The quantities of one column, labelled."""
    return [(label, quantities[name]) for name, label in labels.items() if name in quantities]


def leading(estimate: Estimate, most: int) -> list[Assumption]:
    """The assumptions to show first: what makes the intervals, what the user gave, what was guessed; short ones only."""
    weight: dict[str, float] = {}
    for shares in estimate.sensitivities.values():
        for name, share in shares.items():
            weight[name] = max(weight.get(name, 0.0), share)
    ranked = sorted(
        _short(estimate.assumptions),
        key=lambda one: -max(weight.get(one.name, 0.0), _TAG_WEIGHT.get(one.tag, 0.0)),
    )
    return ranked[:most]


def _short(assumptions: Iterable[Assumption]) -> list[Assumption]:
    """Those that can be said in a few words."""
    return [one for one in assumptions if not isinstance(one.value, str) or len(one.value) <= 24]

"""Bytes that must be resident on a device: training states, activations, KV cache."""

from capacity import ops
from capacity.formula import formula


@formula(unit="byte", symbol="M_w")
def weight_bytes(weight_elements: float, bytes_per_weight: float, shards: float = 1.0) -> float:
    """Weights kept by one device.

    1. Every weight takes bytes_per_weight (scales and zero points of a quantised format included).
    2. They are cut over `shards` devices.
    """
    return weight_elements * bytes_per_weight / shards


@formula(unit="byte", symbol="M_g")
def gradient_bytes(trained_elements: float, bytes_per_gradient: float, shards: float = 1.0) -> float:
    """Gradients of the trained weights, kept from the first micro-batch to the optimizer step."""
    return trained_elements * bytes_per_gradient / shards


@formula(unit="byte", symbol="M_opt", cite="rajbhandari2020")
def optimizer_bytes(trained_elements: float, bytes_per_state: float, shards: float = 1.0) -> float:
    """Optimizer states and the master copy of the weights.

    1. AdamW in mixed precision: 4 bytes master + 4 first moment + 4 second moment = 12 a weight.
    Valid for: any optimizer, by its bytes_per_state.
    """
    return trained_elements * bytes_per_state / shards


@formula(unit="byte", symbol="m_norm", cite="korthikanti2022")
def stream_activation_bytes(
    tokens: float, hidden: float, bytes_per_element: float, stream_shards: float, saved_copies: float = 2.0
) -> float:
    """Saved of the residual stream by one sublayer: the input of its norm and the norm's output.

    1. saved_copies tensors of tokens x hidden; sequence parallelism cuts them over stream_shards.
    """
    return tokens * hidden * saved_copies * bytes_per_element / stream_shards


@formula(unit="byte", symbol="m_attn", cite="korthikanti2022, dao2023")
def attention_activation_bytes(
    tokens: float,
    projected_width: float,
    core_width: float,
    heads: float,
    tensor_parallel: float,
    bytes_per_element: float,
    statistic_bytes: float = 4.0,
) -> float:
    """Saved by one attention layer with a fused core.

    1. Queries, keys and values: tokens x projected_width.
    2. The core's output, which is the input of the output projection: tokens x core_width.
    3. One softmax statistic (fp32) per token and head; the scores themselves are recomputed by the fused kernel.
    """
    per_token = (projected_width + core_width) * bytes_per_element + heads * statistic_bytes
    return tokens * per_token / tensor_parallel


@formula(unit="byte", symbol="m_ffn", cite="korthikanti2022")
def ffn_activation_bytes(
    tokens: float, width: float, tensors: float, tensor_parallel: float, bytes_per_element: float
) -> float:
    """Saved by one feed-forward layer: `tensors` of tokens x width (2, or 3 with a gate)."""
    return tokens * width * tensors * bytes_per_element / tensor_parallel


@formula(unit="byte", symbol="M_logits")
def logit_bytes(tokens: float, vocab_size: float, tensor_parallel: float, bytes_per_logit: float = 6.0) -> float:
    """Logits of one micro-batch on the last stage.

    1. 2 bytes for the logits and 4 for the fp32 softmax and its gradient, which share a buffer.
    Valid for: a fused vocabulary-parallel loss; an unfused fp32 loss takes up to 16.
    """
    return tokens * vocab_size * bytes_per_logit / tensor_parallel


@formula(unit="1", symbol="n_mb", cite="narayanan2021")
def micro_batches_in_flight(stages: float, stage: float, micro_batches: float, interleave: float = 1.0) -> float:
    """Micro-batches whose activations the stage (counted from 0) holds at its peak under 1F1B.

    1. Plain 1F1B: stages - stage, at most the micro-batches there are.
    2. Interleaved with v chunks a device: [2 (stages - stage - 1) + (v - 1) stages + 1] / v.
    """
    plain = stages - stage
    interleaved = (2.0 * (stages - stage - 1.0) + (interleave - 1.0) * stages + 1.0) / interleave
    return ops.minimum(ops.where(interleave > 1.0, interleaved, plain), micro_batches)


@formula(unit="byte", symbol="M_kv")
def kv_cache_bytes(
    cached_tokens: float, cache_elements_per_token: float, bytes_per_element: float, shards: float = 1.0
) -> float:
    """KV cache of all tokens in flight: keys and values of every layer that keeps them.

    Counts: cache_elements_per_token over all layers (2 x KV heads x head size each; one latent for MLA).
    Ignores: paging waste (under 4 % with pages of 16 tokens).
    """
    return cached_tokens * cache_elements_per_token * bytes_per_element / shards


@formula(unit="1", symbol="n_cached")
def cached_tokens(sequences: float, context: float, window: float) -> float:
    """Tokens a layer keeps: the whole context, or its window."""
    return sequences * ops.minimum(context, window)


@formula(unit="byte", symbol="M_rt")
def runtime_bytes(context_bytes: float, dynamic_bytes: float, fragmentation: float) -> float:
    """What the framework takes: driver context and libraries, and the allocator's share of dynamic memory."""
    return context_bytes + dynamic_bytes * fragmentation


@formula(unit="1", symbol="n_min")
def devices_needed(total_bytes: float, usable_bytes: float) -> float:
    """Fewest devices that hold a state cut evenly over them."""
    return ops.ceil(total_bytes / usable_bytes)

"""What each training stack keeps in memory beyond the least."""

from __future__ import annotations

from capacity.record import Record


class Habits(Record):
    """What a stack keeps in memory beyond the least: fitted on published peaks (docs/accuracy-training.md).

    logit_bytes: of one logit from its product to its gradient. gradient_bytes: of a gradient kept until the step (None: as
    the workload's precision says). gated_tensors: inner tensors a gated network saves; norm_tensors: copies of the stream
    one norm saves, in activation widths. buffer_bytes: live buckets of collectives. gathered_layers: of sharded weights.
    dropout: whether masks of a byte are saved. allocator: what the caching allocator keeps beside live tensors, as a share of
    them. bf16_gradient_bytes: further copy of a gradient where bf16 ones are added up in fp32. selective: share of a block that selective recomputation keeps (None: all but norm outputs and one inner tensor).
    """

    logit_bytes: float = 6.6
    gradient_bytes: float | None = None
    gated_tensors: float = 3.0
    norm_tensors: float = 2.0
    buffer_bytes: float = 0.0
    gathered_layers: float = 2.0
    dropout: bool = False
    allocator: float = 0.05
    selective: float | None = None
    bf16_gradient_bytes: float = 0.0


# Megatron's fused loss over a cut vocabulary keeps 2 + 4 bytes a logit and masks. Eager losses copy logits to fp32, shift and
# differentiate them; eager gated networks save the activation's output besides gate, up and their product. DeepSpeed
# keeps buckets of half a billion elements, ZeRO-3 a billion live parameters. PyTorch's selective checkpointing keeps
# every second product and attention. Nanotron adds gradients up in fp32 beside those of 16 bits. InternEvo's optimizer holds, at its
# step, gradients of 16 bits, their flat copy, one in fp32 and the two temporaries of an update that is not fused.
HABITS = {
    "megatron-core": Habits(),
    "megatron-lm": Habits(dropout=True, allocator=0.08),
    "megatron-deepspeed": Habits(dropout=True, allocator=0.08, buffer_bytes=2.5e9, bf16_gradient_bytes=2.0),
    "fsdp": Habits(logit_bytes=14.0, gradient_bytes=2.0, gated_tensors=4.0),
    "torchtitan": Habits(logit_bytes=14.0, gradient_bytes=2.0, gated_tensors=4.0, selective=0.25),
    "deepspeed": Habits(logit_bytes=14.0, gradient_bytes=2.0, gated_tensors=4.0, buffer_bytes=5e9),
    "hugging-face": Habits(
        logit_bytes=14.0, gradient_bytes=4.0, gated_tensors=4.0, norm_tensors=3.0, buffer_bytes=2e9, allocator=0.08
    ),
    "nanotron": Habits(logit_bytes=16.0, gradient_bytes=6.0, gated_tensors=4.0, norm_tensors=3.0),
    "internevo": Habits(logit_bytes=14.0, gradient_bytes=14.0, gated_tensors=4.0),
    "litgpt": Habits(logit_bytes=4.0, gradient_bytes=2.0, gated_tensors=4.0, norm_tensors=3.0),
    "jax": Habits(logit_bytes=8.0, gradient_bytes=2.0),
}


def habits_of(stack: str) -> Habits:
    """What a stack keeps in memory; one that nobody measured is as thrifty as Megatron."""
    return HABITS.get(stack, HABITS["megatron-core"])

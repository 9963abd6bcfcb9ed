"""What each training stack keeps in memory beyond the least."""

from __future__ import annotations

from capacity.record import Record


class Habits(Record):
    """What a stack keeps in memory beyond the least (docs/accuracy-training.md).

    Counted from its code, and held to torch by tests/contract/test_exact_activations.py where it runs there:
    logit_bytes: of one logit at the fullest instant between its product and its gradient.
    gated_tensors: inner tensors a gated network saves, the input of its last product among them.
    norm_tensors: copies of the stream one norm saves, in activation widths, its output as input of a product among them;
    frozen_norm_tensors: where its weight is not trained, its output apart.
    gradient_bytes: of a gradient kept until the step (None: as the workload's precision says); bf16_gradient_bytes: further
    copy where bf16 ones are added up in fp32. contiguous: gradients have their buffers before the first one is made.
    update_bytes: of a trained weight while the optimizer is at work, cut as its states are.
    adapter_bytes: of a weight of an adapter beside a frozen base (None: as activations, with a master copy).
    table_bytes: of a weight of table and head beside a quantised base.
    dropout: whether masks of a byte are saved.

    Fitted on published peaks:
    buffer_bytes: live buckets of collectives. gathered_layers: of sharded weights. allocator: what the caching allocator
    keeps beside live tensors, as a share of them. selective: share of a block that selective recomputation keeps (None: all
    but norm outputs and one inner tensor).
    """

    logit_bytes: float = 6.6
    gated_tensors: float = 3.0
    norm_tensors: float = 2.0
    frozen_norm_tensors: float = 1.0
    gradient_bytes: float | None = None
    bf16_gradient_bytes: float = 0.0
    contiguous: bool = True
    mixed_units: bool = False
    update_bytes: float = 0.0
    fp16_update_bytes: float = 0.0
    adapter_bytes: float | None = None
    table_bytes: float = 2.0
    dropout: bool = False
    buffer_bytes: float = 0.0
    bucket_elements: float = 0.0
    stage_outputs: bool = False
    communicators: float = 0.0
    gathered_layers: float = 2.0
    allocator: float = 0.05
    selective: float | None = None


# Megatron's fused loss over a cut vocabulary keeps 2 + 4 bytes a logit and masks. Eager losses copy logits to fp32, shift and
# differentiate them; eager gated networks save the activation's output besides gate, up and their product. Hugging Face's
# norms are eager too: the stream in fp32, normalised, weighted; PEFT keeps adapters in fp32, and turns table and head of a
# quantised model to fp32. DeepSpeed keeps buckets of half a billion elements, ZeRO-3 a billion live parameters; its ZeRO holds,
# at the step, its share of gradients in fp32 and their flat copy. PyTorch's selective checkpointing keeps
# every second product and attention. Nanotron adds gradients up in fp32 beside those of 16 bits. InternEvo's optimizer holds, at its
# step, gradients of 16 bits, their flat copy, one in fp32 and the two temporaries of an update that is not fused.
HABITS = {
    "megatron-core": Habits(),
    "megatron-lm": Habits(dropout=True, allocator=0.08),
    "megatron-deepspeed": Habits(
        dropout=True,
        allocator=0.08,
        bucket_elements=5e8,
        stage_outputs=True,
        communicators=3.0,
        gradient_bytes=2.0,
        bf16_gradient_bytes=4.0,
        fp16_update_bytes=6.0,
    ),
    "fsdp": Habits(logit_bytes=14.0, gradient_bytes=2.0, gated_tensors=4.0),
    "torchtitan": Habits(logit_bytes=14.0, gradient_bytes=2.0, gated_tensors=4.0, selective=0.25),
    "deepspeed": Habits(logit_bytes=14.0, gradient_bytes=2.0, gated_tensors=4.0, buffer_bytes=5e9),
    "hugging-face": Habits(
        logit_bytes=14.0,
        gated_tensors=4.0,
        norm_tensors=4.0,
        frozen_norm_tensors=2.0,
        gradient_bytes=4.0,
        adapter_bytes=4.0,
        table_bytes=4.0,
        contiguous=False,
        update_bytes=4.0,
        buffer_bytes=2e9,
        allocator=0.08,
    ),
    "nanotron": Habits(logit_bytes=16.0, gradient_bytes=6.0, gated_tensors=4.0, norm_tensors=3.0),
    "internevo": Habits(logit_bytes=14.0, gradient_bytes=14.0, gated_tensors=4.0),
    "litgpt": Habits(
        logit_bytes=4.0,
        gradient_bytes=2.0,
        gated_tensors=4.0,
        norm_tensors=5.0,
        frozen_norm_tensors=2.0,
        adapter_bytes=2.0,
        mixed_units=True,
    ),
    "jax": Habits(logit_bytes=8.0, gradient_bytes=2.0),
}


def habits_of(stack: str) -> Habits:
    """What a stack keeps in memory; one that nobody measured is as thrifty as Megatron."""
    return HABITS.get(stack, HABITS["megatron-core"])

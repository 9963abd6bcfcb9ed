"""What the model is asked to do."""

from __future__ import annotations

from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.model import ModelSpec

TRAINING_MODES = ("train", "finetune", "lora")
MODES = (*TRAINING_MODES, "serve")


class Precision(Record):
    """Storage width of each kind of number, in bits per element (4.25 for int4 in groups of 128).

    saved_bits: of inputs of products kept for the backward pass (0: as activations).
    """

    weight_bits: float = 16.0
    activation_bits: float = 16.0
    gradient_bits: float = 16.0
    master_bits: float = 32.0
    kv_bits: float = 16.0
    compute: str = "bf16"
    saved_bits: float = 0.0


class Workload(Record):
    """A training run (`mode` train, finetune, lora) or a serving load (`mode` serve).

    tokens: training tokens in all; seq_len: tokens a sequence; global_batch: sequences a step.
    prompt_len, output_len: tokens a request; concurrency: requests in flight per replica.
    lora_rank: rank of the trained adapters; trains_embedding: the token table and head are trained beside them (lora only).
    stack: the training software. teacher: a model whose logits are learnt from, run beside (distillation).
    short_states: moments and gradients are kept in 16 bits.
    fused_loss: logits are made and used in chunks, never held at once.
    eval_tokens: of one evaluation (0: none), which comes every eval_interval steps. ramp_tokens: over which the batch rises
    from ramp_from sequences to the global batch (0: it does not).
    """

    mode: str = "train"
    tokens: float = 0.0
    seq_len: float = 4096.0
    global_batch: float = 0.0
    optimizer: str = "adamw"
    precision: Precision = Precision()
    lora_rank: float = 16.0
    trains_embedding: bool = False
    fused_loss: bool = False
    short_states: bool = False
    stack: str = "megatron-core"
    teacher: ModelSpec | None = None
    eval_interval: float = 1000.0
    eval_tokens: float = 0.0
    ramp_from: float = 1.0
    ramp_tokens: float = 0.0
    prompt_len: float = 1024.0
    output_len: float = 256.0
    concurrency: float = 16.0

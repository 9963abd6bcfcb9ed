"""What the model is asked to do."""

from __future__ import annotations

from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from capacity.spec.model import ModelSpec

TRAINING_MODES = ("train", "finetune", "lora", "rlhf")
# Reinforcement learning: groups of answers judged against each other, or a critic that values each token.
ALGORITHMS = ("grpo", "ppo")
MODES = (*TRAINING_MODES, "serve")
# Halves of serving that can be asked for alone; the use of a network that is no language model; where a model can be put.
PHASES = ("decode", "prefill")
INFER, DEPLOY = "infer", "deploy"
ALL_MODES = (*MODES, *PHASES, INFER, DEPLOY)


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


class Rollout(Record):
    """Answers that are learnt from, written by the model itself: of an iteration as many as the global batch.

    group: answers a prompt. updates: optimizer steps an iteration. variation: deviation of answers' lengths over their mean.
    devices: of a pool that does nothing but write, one iteration ahead (0: the devices that train write too).
    """

    algorithm: str = "grpo"
    group: float = 8.0
    updates: float = 1.0
    prompt_len: float = 512.0
    output_len: float = 2048.0
    variation: float = 0.5
    devices: float = 0.0


class Workload(Record):
    """A training run (`mode` train, finetune, lora, rlhf) or a serving load (`mode` serve).

    tokens: training tokens in all; seq_len: tokens a sequence; global_batch: sequences a step.
    prompt_len, output_len: tokens a request; concurrency: requests in flight per replica.
    lora_rank: rank of the trained adapters; lora_targets: names of the linear maps that have one (none named: all of the
    blocks); lora_dropout: share dropped of an adapter's inputs. trains_embedding: the token table and head are trained beside them (lora only).
    stack: the training software. guides: frozen models that every sequence passes forward, by name: a teacher whose logits
    are learnt from, a reference, a reward model. critic: a model trained beside. rollout: how an iteration's sequences are written.
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
    lora_targets: tuple[str, ...] = ()
    lora_dropout: float = 0.0
    trains_embedding: bool = False
    fused_loss: bool = False
    short_states: bool = False
    stack: str = "megatron-core"
    guides: tuple[tuple[str, ModelSpec], ...] = ()
    critic: ModelSpec | None = None
    rollout: Rollout | None = None
    eval_interval: float = 1000.0
    eval_tokens: float = 0.0
    ramp_from: float = 1.0
    ramp_tokens: float = 0.0
    prompt_len: float = 1024.0
    output_len: float = 256.0
    concurrency: float = 16.0

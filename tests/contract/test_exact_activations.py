"""What torch saves between forward and backward, byte for byte, beside what the memory of training says.

Small models of real shapes are run on the CPU in 16 bits under torch's own hooks on saved tensors; a layer is what three
layers save more than two. Left out on both sides: statistics of norms, a number a token. Peaks are read from live storages
under fake tensors.
"""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

from capacity.estimators.training_activations import block_activations
from capacity.estimators.training_habits import HABITS
from capacity.importers.huggingface import from_config
from capacity.record import replace
from capacity.spec.plan import Plan
from capacity.spec.workload import Precision, Workload

SEQUENCES, LENGTH, VOCABULARY = 2, 32, 96
WIDTHS = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 64}
LLAMA = LlamaConfig(**WIDTHS, num_key_value_heads=2, intermediate_size=176)
QWEN = Qwen3Config(**WIDTHS, num_key_value_heads=4, head_dim=16, intermediate_size=200)
GPT = GPT2Config(
    vocab_size=VOCABULARY, n_embd=64, n_head=4, n_positions=64, activation_function="gelu",
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
)  # fmt: skip
HALF = Precision(16.0, 16.0, 32.0, 32.0, 16.0, "bf16")
FULL = Workload(seq_len=LENGTH, global_batch=SEQUENCES, precision=HALF, stack="hugging-face")
LORA = replace(FULL, mode="lora", lora_rank=4.0)
QUERY_VALUE = ("q_proj", "v_proj")
DEEPER = {"llama": "num_hidden_layers", "qwen3": "num_hidden_layers", "gpt2": "n_layer"}


class Adapted(nn.Module):
    """A frozen linear map with a low-rank adapter, as PEFT runs it on a GPU, where dropout's mask is a byte."""

    def __init__(self, base: nn.Linear, rank: int, dropout: float) -> None:
        super().__init__()
        self.base, self.dropout = base, dropout
        self.down = nn.Linear(base.in_features, rank, bias=False, dtype=base.weight.dtype)
        self.up = nn.Linear(rank, base.out_features, bias=False, dtype=base.weight.dtype)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Frozen and learnt map of the same tokens."""
        kept = torch.native_dropout(tokens, self.dropout, True)[0] if self.dropout else tokens
        return self.base(tokens) + self.up(self.down(kept)) * 2.0


def build(config, layers, workload=FULL, *, checkpointed=False):
    """The published class with so many layers, all of it trained or adapters alone."""
    setattr(config, DEEPER[config.model_type], layers)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(torch.bfloat16).train()
    if workload.mode == "lora":
        model.requires_grad_(requires_grad=False)
        for module in list(model.model.layers.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear) and (not workload.lora_targets or name in workload.lora_targets):
                    setattr(module, name, Adapted(child, int(workload.lora_rank), workload.lora_dropout))
        model.enable_input_require_grads()
    if checkpointed:
        model.activation_checkpointing_enable()
    return model


def saved_bytes(model) -> int:
    """Bytes of all storages that a forward pass saves, beside the model's own."""
    own = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    found: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.shape[-1:] != (1,):
            found.setdefault(storage.data_ptr(), (storage.nbytes(), tensor))
        return tensor

    tokens = torch.zeros(SEQUENCES, LENGTH, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    assert kept.requires_grad
    return sum(size for size, _ in found.values())


def layer_bytes(config, workload=FULL, **options) -> int:
    """Bytes that one layer more saves."""
    three, two = (saved_bytes(build(config, layers, workload, **options)) for layers in (3, 2))
    return three - two


def told_bytes(config, workload=FULL, recompute="none") -> float:
    """The same, as the estimator says."""
    setattr(config, DEEPER[config.model_type], 1)
    model = from_config(config.to_dict(), source="contract")
    plan = Plan(micro_batch=float(SEQUENCES), recompute=recompute)
    return block_activations(model, workload, plan, habits=HABITS["hugging-face"])[0]


@pytest.mark.parametrize("config", [LLAMA, QWEN, GPT], ids=["rms norm, gated", "norms of heads", "layer norm, plain"])
def test_a_layer_that_learns_saves_what_torch_saves(config):
    assert told_bytes(config) == layer_bytes(config)


@pytest.mark.parametrize("targets", [QUERY_VALUE, ()], ids=["queries and values", "all maps"])
@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_adapters_save_their_own_inputs_and_frozen_maps_none(targets, dropout):
    workload = replace(LORA, lora_targets=targets, lora_dropout=dropout)
    assert told_bytes(LLAMA, workload) == layer_bytes(LLAMA, workload)


def test_a_frozen_base_saves_less_than_one_that_learns():
    assert told_bytes(LLAMA, replace(LORA, lora_targets=QUERY_VALUE)) < 0.8 * told_bytes(LLAMA)


@pytest.mark.parametrize("config", [LLAMA, GPT], ids=["llama", "gpt2"])
def test_a_checkpointed_layer_saves_its_input(config):
    assert told_bytes(config, recompute="full") == layer_bytes(config, checkpointed=True)


class Live(TorchDispatchMode):
    """The most bytes of storages alive at once of those made under it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._see, out)
        return out

    def _see(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.known:
            self.known[key] = storage.nbytes()
            self.now += self.known[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, lambda: self._gone(key))

    def _gone(self, key):
        self.now -= self.known.pop(key)


def copied(stream, head, labels):
    """transformers 5: logits in fp32, their loss."""
    logits = linear(stream, head)

    def loss():
        wide = logits.float().view(-1, logits.size(-1))
        return cross_entropy(wide, labels.view(-1))

    loss().backward()


def test_eager_losses_hold_fourteen_bytes_a_logit():
    """2 of the product, 4 of its fp32 copy, 4 of log-softmax, 4 of the gradient."""
    tokens, words = 512, 4096
    with FakeTensorMode():
        head = nn.Parameter(torch.empty(words, 8, dtype=torch.bfloat16))
        stream = torch.empty(1, tokens, 8, dtype=torch.bfloat16, requires_grad=True)
        with Live() as live:
            copied(stream, head, torch.zeros(1, tokens, dtype=torch.long))
    assert live.peak / tokens / words == pytest.approx(HABITS["hugging-face"].logit_bytes, rel=5e-3)


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1.0), (torch.bfloat16, 0.5)])
def test_an_update_of_many_tensors_at_once_takes_a_moment_more(dtype, share):
    with FakeTensorMode():
        weights = [nn.Parameter(torch.empty(1000, 100, dtype=dtype)) for _ in range(8)]
        count = sum(one.numel() for one in weights)
        optimizer = torch.optim.AdamW(weights, foreach=True)
        with Live() as live:
            for one in weights:
                one.grad = torch.empty_like(one)
            optimizer.step()
            kept = live.now
    assert (live.peak - kept) / count == pytest.approx(HABITS["hugging-face"].update_bytes * share, rel=1e-3)

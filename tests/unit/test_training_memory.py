"""Memory of training against the arithmetic of the papers it comes from."""

from __future__ import annotations

import pytest

from capacity.catalogue import load_model
from capacity.estimators.answer import estimate
from capacity.estimators.lowering import Tokens, lower, parameter_count
from capacity.estimators.training_activations import block_activations
from capacity.estimators.training_memory import training_memory
from capacity.estimators.training_weights import Weights, local_elements, lora_elements, weights_of
from capacity.formulas.memory import devices_needed, micro_batches_in_flight
from capacity.record import replace
from capacity.spec.plan import Plan
from capacity.spec.workload import Precision, Workload

MIXED = Precision(gradient_bits=32.0)
BATCH = Workload(seq_len=2048.0, global_batch=64.0, precision=MIXED)


def weights(model):
    return weights_of(lower(model, Tokens()))


def held(model, workload=BATCH, sums=None, rounds=64.0, **plan):
    return training_memory(model, sums or weights(model), workload, Plan(**plan), rounds, 0.0)


def states(parts):
    return parts["weights"] + parts["gradients"] + parts["optimizer"]


@pytest.fixture(scope="module")
def llama():
    return load_model("llama-2-7b")


@pytest.fixture(scope="module")
def gpt3():
    return load_model("gpt-3-175b")


@pytest.fixture(scope="module")
def mixtral():
    return load_model("mixtral-8x7b")


def test_mixed_precision_adamw_takes_eighteen_bytes_a_parameter(llama):
    """2 weights, 4 fp32 gradients, 4 master, 4 + 4 moments: Megatron-LM's count for distributed optimizer off."""
    assert states(held(llama)) == pytest.approx(18.0 * 6_738_415_616, rel=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "bytes_per_parameter"),
    [("sgd", 10), ("momentum", 14), ("lion", 14), ("adamw", 18), ("adamw-8bit", 12)],
)
def test_the_optimizer_decides_the_states(llama, optimizer, bytes_per_parameter):
    parts = held(llama, replace(BATCH, optimizer=optimizer))
    assert states(parts) == pytest.approx(bytes_per_parameter * 6_738_415_616, rel=1e-12)


def test_full_precision_has_no_master_copy(llama):
    """4 weights, 4 gradients, 8 moments."""
    parts = held(llama, replace(BATCH, precision=Precision(32.0, 32.0, 32.0, 32.0, 16.0, "fp32")))
    assert states(parts) == pytest.approx(16.0 * 6_738_415_616, rel=1e-12)


@pytest.mark.parametrize(("zero", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.88)])
def test_zero_shards_as_in_figure_1_of_its_paper(llama, zero, gigabytes):
    """Rajbhandari 2020: 7.5 billion parameters over 64 devices, 16-bit gradients, K = 12."""
    sums = Weights(7.5e9, 0.0, 0.0, 0.0, 0.0)
    half = replace(BATCH, precision=Precision(gradient_bits=16.0))
    assert states(held(llama, half, sums, dp=64.0, zero=zero)) == pytest.approx(gigabytes * 1e9, rel=3e-3)


@pytest.mark.parametrize("zero", [1, 2, 3])
@pytest.mark.parametrize("ep", [1.0, 2.0, 8.0])
def test_sharded_states_add_up_to_one_copy_over_all_ranks(mixtral, zero, ep):
    params = parameter_count(lower(mixtral, Tokens()))
    parts = held(mixtral, dp=16.0, ep=ep, zero=zero)
    assert 16.0 * parts["optimizer"] == pytest.approx(12.0 * params, rel=1e-12)
    if zero >= 2:
        assert 16.0 * parts["gradients"] == pytest.approx(4.0 * params, rel=1e-12)
    if zero >= 3:
        assert 16.0 * parts["weights"] == pytest.approx(2.0 * params, rel=1e-12)


def test_experts_are_dealt_over_expert_ranks(mixtral):
    """Mixtral: 8 experts of 3 x 4096 x 14336 in 32 layers; one of eight ranks keeps one of each layer."""
    experts = 32 * 8 * 3 * 4096 * 14336
    params = parameter_count(lower(mixtral, Tokens()))
    parts = held(mixtral, dp=8.0, ep=8.0)
    assert parts["weights"] == pytest.approx(2.0 * (params - experts + experts / 8), rel=1e-12)


@pytest.mark.parametrize("tp", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("pp", [2.0, 4.0])
def test_pipeline_stages_hold_every_parameter_once(llama, tp, pp):
    """First and last stage differ by the embedding and the head; vectors are on every tensor-parallel rank."""
    sums = weights(llama)
    plan = Plan(tp=tp, pp=pp)
    first, last = (local_elements(sums, plan, stage)[0] for stage in ("first", "last"))
    inner = first - sums.embedding / tp
    assert inner == pytest.approx(last - sums.head / tp, rel=1e-12)
    assert pp * tp * inner + sums.embedding + sums.head == pytest.approx(
        sums.all + (tp - 1.0) * sums.vectors, rel=1e-12
    )


def test_a_tied_head_is_copied_to_the_last_stage():
    model = load_model("gpt2")
    sums = weights(model)
    assert sums.head == 0.0
    assert sums.all == 124_439_808
    one = local_elements(sums, Plan(), "first")[0]
    first, last = (local_elements(sums, Plan(pp=2.0), stage)[0] for stage in ("first", "last"))
    assert one == sums.all
    assert first + last == pytest.approx(sums.all + sums.embedding, rel=1e-12)


class TestActivations:
    """Korthikanti 2022 counts 34 s b h + 5 a s^2 b a layer.

    Here dropout is gone (two masks of 1 byte: 2 s b h) and a fused kernel keeps 4 bytes of statistics a head and
    token instead of 5 a s^2 b, which leaves s b (32 h + 4 a): norms and their outputs 8, queries, keys and values 6,
    output of the core 2, the two inner tensors 16.
    """

    h, a, layers, s = 12288, 96, 96, 2048

    def saved(self, gpt3, workload=BATCH, **plan):
        return block_activations(gpt3, workload, Plan(**plan))[0]

    def test_a_layer_without_recomputation(self, gpt3):
        expected = self.layers * self.s * (32 * self.h + 4 * self.a)
        assert self.saved(gpt3) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("tp", [2.0, 8.0])
    def test_sequence_parallelism_cuts_all_of_it(self, gpt3, tp):
        assert self.saved(gpt3, tp=tp) == pytest.approx(self.saved(gpt3) / tp, rel=1e-12)

    def test_without_sequence_parallelism_the_stream_stays_whole(self, gpt3):
        """The paper's s b h (10 + 24 / t), less the masks: 8 whole, 24 cut."""
        expected = self.layers * self.s * (8 * self.h + (24 * self.h + 4 * self.a) / 8)
        assert self.saved(gpt3, tp=8.0, sequence_parallel=False) == pytest.approx(expected, rel=1e-12)

    def test_full_recomputation_keeps_two_bytes_of_each_layers_input(self, gpt3):
        assert self.saved(gpt3, recompute="full") == pytest.approx(2 * self.s * self.h * self.layers, rel=1e-12)

    def test_full_recomputation_works_on_one_layer_at_a_time(self, gpt3):
        working = block_activations(gpt3, BATCH, Plan(recompute="full"))[1]
        assert working == pytest.approx(self.saved(gpt3) / self.layers, rel=1e-12)

    def test_grouped_keys_and_gated_networks(self):
        """Llama 3.1 8B, s b times: 8 h + 2 (32 + 2 x 8) 128 + 2 x 32 x 128 + 4 x 32 + 3 x 2 x 14336."""
        expected = 32 * self.s * (8 * 4096 + 2 * 48 * 128 + 2 * 32 * 128 + 4 * 32 + 6 * 14336)
        assert self.saved(load_model("llama-3.1-8b")) == pytest.approx(expected, rel=1e-12)

    def test_selective_recomputation_drops_norm_outputs_and_one_inner_tensor(self, gpt3):
        dropped = self.layers * self.s * (2 * 2 * self.h + 2 * 4 * self.h)
        assert self.saved(gpt3) - self.saved(gpt3, recompute="selective") == pytest.approx(dropped, rel=1e-12)

    @pytest.mark.parametrize("model", ["gpt-3-175b", "mixtral-8x7b", "deepseek-v3", "falcon-mamba-7b", "t5-large"])
    def test_policies_are_ordered_and_linear_in_tokens(self, model):
        spec = load_model(model)
        none, selective, full = (self.saved(spec, recompute=policy) for policy in ("none", "selective", "full"))
        assert full < selective < none
        assert self.saved(spec, micro_batch=4.0) == pytest.approx(4.0 * none, rel=1e-12)
        longer = replace(BATCH, seq_len=3.0 * BATCH.seq_len)
        assert self.saved(spec, longer) == pytest.approx(3.0 * none, rel=1e-12)


class TestPipeline:
    @pytest.mark.parametrize(
        ("stages", "stage", "micro_batches", "chunks", "expected"),
        [
            (8, 0, 64, 1, 8),
            (8, 7, 64, 1, 1),
            (8, 3, 64, 1, 5),
            (8, 0, 3, 1, 3),
            (1, 0, 9, 1, 1),
            (8, 0, 64, 4, 8 * (1 + 7 / (8 * 4))),  # korthikanti2022, equation 5
            (8, 7, 64, 4, (3 * 8 + 1) / 4),
        ],
    )
    def test_micro_batches_in_flight(self, stages, stage, micro_batches, chunks, expected):
        assert micro_batches_in_flight(stages, stage, micro_batches, chunks) == pytest.approx(expected)

    @pytest.mark.parametrize("pp", [2.0, 4.0, 8.0])
    def test_the_first_stage_holds_as_many_layers_worth_as_no_pipeline(self, gpt3, pp):
        """p micro-batches of L / p layers: pipelining alone saves no activations."""
        sums = Weights(1e9, 0.0, 0.0, 0.0, 0.0)
        without = held(gpt3, sums=sums, rounds=64.0)["activations"]
        assert held(gpt3, sums=replace(sums, embedding=1e15), pp=pp)["activations"] == pytest.approx(without)

    def test_the_fullest_stage_is_reported(self, llama):
        small, large = (replace(weights(llama), embedding=value, head=1e12) for value in (0.0, 2e12))
        on_last = held(llama, sums=small, pp=2.0)
        assert on_last["working set"] == pytest.approx(2048 * 32000 * 6.6)
        assert held(llama, sums=large, pp=2.0)["working set"] < on_last["working set"]


def test_logits_of_a_vocabulary_parallel_loss(llama):
    """6.6 bytes a logit: 2 of bf16, 4 of the fp32 softmax, and masks; cut over tp."""
    assert held(llama)["working set"] == pytest.approx(2048 * 32000 * 6.6)
    assert held(llama, tp=4.0, micro_batch=2.0)["working set"] == pytest.approx(2 * 2048 * 32000 * 6.6 / 4)


def test_fully_sharded_weights_gather_two_layers_and_the_table(llama):
    """FSDP keeps the layer at work and the next one whole (2 x 202,383,360 weights), and the embedding."""
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    parts = held(llama, dp=8.0, zero=3)
    assert parts["gathered weights"] == pytest.approx(2.0 * (2 * layer + 32000 * 4096), rel=1e-3)
    assert "gathered weights" not in held(llama, dp=8.0, zero=2)


def test_adapters_have_the_published_size():
    """LoRA of rank 16 on all linear maps of Llama 3.1 8B trains 41,943,040 parameters, as peft prints."""
    model = load_model("llama-3.1-8b")
    lora = replace(BATCH, mode="lora", lora_rank=16.0)
    assert lora_elements(model, lora, Plan()) == 41_943_040
    parts = held(model, lora)
    assert parts["weights"] == pytest.approx(2.0 * (8_030_261_248 + 41_943_040))
    assert parts["gradients"] == pytest.approx(4.0 * 41_943_040)
    assert parts["optimizer"] == pytest.approx(12.0 * 41_943_040)


@pytest.mark.parametrize(("total", "usable", "devices"), [(80.0, 80.0, 1), (80.1, 80.0, 2), (799.0, 80.0, 10)])
def test_devices_are_whole(total, usable, devices):
    assert devices_needed(total, usable) == devices


def test_the_states_of_a_checkpoint():
    """A resumable mixed-precision checkpoint is 14 bytes a parameter; the published BLOOM-176B one was 2.3 TB."""
    section = estimate(model="bloom-176b", mode="train").sections["train"]
    assert section.quantities["checkpoint"].mid == pytest.approx(2.3e12, rel=0.1)


def test_a_checkpoint_in_full_precision_is_twelve_bytes_a_parameter():
    section = estimate(model="llama-2-7b", mode="train", precision="fp32").sections["train"]
    assert section.quantities["checkpoint"].mid == pytest.approx(12.0 * 6_738_415_616, rel=1e-9)


def test_what_does_not_fit_says_by_how_much():
    section = estimate(model="llama-3.1-70b", mode="train", devices=8).sections["train"]
    assert section.fits is False
    assert section.binding == "memory"
    assert section.verdict.startswith("DOES NOT FIT: needs ")
    assert "too much" in section.verdict
    assert section.quantities["fewest_devices"].mid > 8


def test_the_fewest_devices_do_hold_it():
    for model in ("llama-2-7b", "llama-3.1-70b"):
        fewest = estimate(model=model, mode="train").sections["train"].quantities["fewest_devices"].mid
        asked = {"model": model, "mode": "train", "batch": int(max(fewest, 64)), "recompute": "full"}
        assert estimate(**asked, devices=int(fewest)).sections["train"].fits
        assert not estimate(**asked, devices=int(fewest) // 2).sections["train"].fits


def test_an_update_that_is_not_fused_holds_its_temporaries():
    """InternEvo's own table: 28 bytes of states a parameter, however cut over tensors, stages and ranks."""
    model = load_model("llama-2-7b")
    sums = weights_of(lower(model, Tokens()))
    work_ = Workload(seq_len=2048.0, global_batch=8.0)
    fused, eager = (
        training_memory(model, sums, work_, Plan(recompute="full"), 1.0, 0.0, stack=stack)
        for stack in ("megatron-core", "internevo")
    )
    assert eager["gradients"] == pytest.approx(14.0 * sums.all)
    assert eager["weights"] + eager["gradients"] + eager["optimizer"] == pytest.approx(28.0 * sums.all)
    assert eager["gradients"] == 7.0 * fused["gradients"]  # of 16 bits


def test_a_sharded_pipeline_keeps_its_stage_gathered():
    """Torchtitan gathers a stage once a step: weights of 16 bits and gradients of 32 stay whole beside their shards."""
    model = load_model("llama-3.1-405b")
    sums = weights_of(lower(model, Tokens()))
    work_ = Workload(seq_len=8192.0, global_batch=64.0)
    plan = Plan(dp=8.0, tp=8.0, pp=7.0, zero=3, recompute="full")
    parts = training_memory(model, sums, work_, plan, 8.0, 0.0, stack="torchtitan", stage="first")
    stage = (sums.dense / 8.0 + sums.vectors) / 7.0 + sums.embedding / 8.0
    assert parts["gathered weights"] == pytest.approx(6.0 * stage)
    alone = training_memory(model, sums, work_, replace(plan, pp=1.0, dp=56.0), 8.0, 0.0, stack="torchtitan")
    assert alone["gathered weights"] < 0.5 * parts["gathered weights"]

"""Layouts beyond data, tensor and pipeline parallelism: what each saves, what it costs, and what it leaves alone."""

from __future__ import annotations

import pytest

from capacity.catalogue import load_model
from capacity.errors import InputError
from capacity.estimators import layout
from capacity.estimators.answer import estimate
from capacity.estimators.case import read_case
from capacity.estimators.lowering import Tokens, lower
from capacity.estimators.stacks import load_stack, stack_names
from capacity.estimators.training_memory import as_seen, training_memory
from capacity.estimators.training_run import price_run, read_workload
from capacity.estimators.training_weights import weights_of
from capacity.formulas import flops, schedule, traffic
from capacity.record import replace
from capacity.spec.plan import Plan
from capacity.spec.workload import Workload

WORK = ("GEMM", "attention", "element-wise", "expert products")


def run(plan, name="llama-3.1-8b", **request):
    case = read_case({"mode": "train", "model": name, "batch": 64, **request})
    workload, _ = read_workload(case)
    return price_run(case, case.model, workload, case.cluster, plan.devices, plan)


def work(priced):
    return sum(priced.time.get(name, 0.0) for name in WORK)


class TestContextParallelism:
    def test_it_cuts_work_and_activations_and_sends_keys(self):
        whole = run(Plan(dp=8.0, zero=1), seq_len=32768)
        cut = run(Plan(dp=2.0, cp=4.0, zero=1), seq_len=32768)
        assert work(cut) == pytest.approx(work(whole), rel=0.06)  # a quarter of each sequence, four times as many
        assert cut.memory["activations"] == pytest.approx(whole.memory["activations"] / 4.0)
        assert cut.memory["optimizer"] == pytest.approx(whole.memory["optimizer"])
        assert "context-parallel traffic" not in whole.time

    def test_what_is_sent_is_keys_and_values_or_heads(self):
        """Grouped keys are fewer than heads, so a ring sends less than Ulysses unless the sequence is cut often."""
        parts = {kind: run(Plan(cp=8.0, cp_kind=kind), seq_len=8192).time for kind in ("ring", "ulysses")}
        assert all(part.get("context-parallel traffic", 0.0) >= 0.0 for part in parts.values())
        slow = run(Plan(cp=64.0), seq_len=8192, batch=1)
        assert slow.time["context-parallel traffic"] > parts["ring"].get("context-parallel traffic", 0.0) / 64.0

    def test_it_has_to_divide_the_devices(self):
        with pytest.raises(InputError, match="cp 3"):
            estimate(model="llama-3.1-8b", mode="train", devices=64, cp=3)


class TestSchedules:
    def test_gaps_filled_with_weights_gradients_are_a_third(self):
        plans = {name: Plan(pp=8.0, schedule=name) for name in ("1f1b", "gpipe", "zero-bubble")}
        bubble = {name: run(plan).time["pipeline bubble"] for name, plan in plans.items()}
        assert bubble["zero-bubble"] == pytest.approx(bubble["1f1b"] / 3.0)
        assert bubble["gpipe"] == pytest.approx(bubble["1f1b"])

    def test_gpipe_keeps_every_micro_batch(self):
        plain, gpipe = (run(Plan(pp=8.0, schedule=name)).memory["activations"] for name in ("1f1b", "gpipe"))
        assert gpipe > plain

    def test_dualpipe_keeps_weights_twice(self):
        plain, dual = (run(Plan(pp=8.0, schedule=name)).memory for name in ("1f1b", "dualpipe"))
        assert dual["weights"] > 1.5 * plain["weights"]

    def test_dualpipe_pairs_stages(self):
        with pytest.raises(InputError, match="pp=1 must be even"):
            estimate(model="llama-3.1-8b", mode="train", devices=8, pp=1, schedule="dualpipe")

    def test_stages_hold_whole_layers_and_the_head_takes_the_place_of_one(self):
        """Dubey 2024: 126 layers over 16 stages of 8, the first and the last with one fewer."""
        assert schedule.fullest_stage_layers(126.0, 16.0, 1.0) == 8.0
        assert schedule.spare_layers(126.0, 16.0, 1.0) == 1.0
        assert schedule.spare_layers(96.0, 8.0, 2.0) == 0.0
        even, uneven = (
            run(Plan(dp=2.0, tp=8.0, pp=pp), "llama-3.1-405b", device="h200-sxm", batch=256).time for pp in (14.0, 16.0)
        )
        assert "uneven stages" not in even
        blocks = sum(uneven.get(name, 0.0) for name in (*WORK, "tensor-parallel traffic", "recomputation"))
        assert uneven["uneven stages"] == pytest.approx(blocks * (128.0 / 126.0 - 1.0), rel=0.02)
        assert uneven.get("head and loss", 0.0) < 0.3 * even["head and loss"]

    def test_chunks_nobody_named_leave_no_stage_fuller(self):
        model = load_model("llama-3.1-405b")
        assert layout.usual_chunks(model, 16.0, 16.0) == 4.0  # 8 layers a stage, two a chunk
        assert layout.usual_chunks(load_model("llama-2-13b"), 4.0, 16.0) == 5.0  # 10 layers a stage: 1, 2, 5 or 10
        assert layout.usual_chunks(load_model("llama-2-13b"), 4.0, 1024.0) == 1.0


class TestSharding:
    def test_replicas_keep_more_and_gather_over_fewer(self):
        """HSDP: eight copies of states that eight devices share; the far gathering is gone."""
        flat = run(Plan(dp=64.0, zero=3), batch=64)
        hybrid = run(Plan(dp=64.0, zero=3, replicas=8.0), batch=64)
        assert hybrid.memory["optimizer"] == pytest.approx(8.0 * flat.memory["optimizer"])
        assert "gradient reduction" in hybrid.time
        assert "gradient reduction" not in flat.time

    def test_replicas_divide_the_ranks(self):
        with pytest.raises(InputError, match="replicas=3"):
            estimate(model="llama-3.1-8b", mode="train", devices=64, replicas=3, zero=3, tp=1, pp=1)

    def test_whole_experts_are_the_same_work(self):
        cut = run(Plan(dp=4.0, tp=2.0, ep=4.0), "mixtral-8x7b")
        whole = run(Plan(dp=4.0, tp=2.0, ep=8.0, etp=1.0), "mixtral-8x7b")
        assert whole.memory["weights"] == pytest.approx(cut.memory["weights"], rel=1e-9)
        # One expert a device is a product like any other, which grouped ones are slower than.
        assert 0.6 * work(cut) < work(whole) < work(cut)


class TestOffload:
    def test_the_optimizer_leaves_the_device_and_takes_its_time(self):
        here, there = (run(Plan(dp=8.0, zero=1, offload=what)) for what in ((), ("optimizer",)))
        assert there.memory["optimizer"] == 0.0
        assert there.time["optimizer on the host"] > 10.0 * here.time["optimizer"]

    def test_activations_go_and_come_back(self):
        there = run(Plan(dp=8.0, zero=1, offload=("activations",)))
        assert there.memory["activations"] == 0.0

    def test_drives_move_what_zero_infinity_says(self):
        """Rajbhandari 2021: states and master weights read and written, gradients written and read; weights written."""
        assert traffic.swapped_bytes(1e9, 12.0, 4.0) == 32e9
        assert traffic.swapped_bytes(1e9, 12.0, 4.0, 2.0) == 34e9
        assert schedule.host_update_time_s(4e9, 2e9, 28e9, 20e9) == pytest.approx(2.0 + 1.4)
        assert schedule.host_update_time_s(4e9, 2e9, 28e9, 20e9, 32e9, 4e9) == pytest.approx(2.0 + 8.0)
        assert schedule.host_update_time_s(4e9, 2e9, 28e9, 20e9, 32e9, 64e9) == pytest.approx(2.0 + 1.4)

    def test_slow_drives_set_the_pace_and_fast_ones_are_the_host(self):
        plan = Plan(dp=8.0, zero=3, offload=("optimizer",))
        on_drives = replace(plan, offload_to="nvme")
        host = run(plan)
        slow, slower, fast = (
            run(on_drives, offload="optimizer", offload_to="nvme", nvme_bandwidth=rate) for rate in (16e9, 8e9, 8e12)
        )
        part = "optimizer on the host"
        assert fast.time[part] == pytest.approx(host.time[part])
        # A gigaweight a device: 32 bytes of each through an eighth of the node's drives.
        assert slower.time[part] - slow.time[part] == pytest.approx(
            slow.weights.all * 32.0 * (1 / 8e9 - 1 / 16e9), rel=1e-6
        )
        assert slow.memory == host.memory
        assert slow.offloaded_bytes == pytest.approx(slow.weights.all / 8.0 * 12.0)

    def test_parameters_come_from_drives_in_every_pass(self):
        plan = Plan(dp=8.0, zero=3, offload=("optimizer", "parameters"), offload_to="nvme")
        slow, fast = (run(plan, offload_to="nvme", nvme_bandwidth=rate) for rate in (4e9, 8e12))
        states = run(replace(plan, offload=("optimizer",)), offload_to="nvme", nvme_bandwidth=4e9)
        assert slow.time["host traffic"] > 10.0 * fast.time.get("host traffic", 0.0)
        assert slow.time["optimizer on the host"] > states.time["optimizer on the host"]
        assert slow.memory["weights"] == 0.0
        assert slow.offloaded_bytes == pytest.approx(slow.weights.all / 8.0 * 14.0, rel=1e-3)

    def test_unsharded_parameters_come_whole(self):
        sharded, whole = (run(Plan(dp=8.0, zero=zero, offload=("parameters",))) for zero in (3, 1))
        assert whole.time["host traffic"] > 4.0 * sharded.time.get("host traffic", 0.0)

    def test_an_answer_says_where_and_how_much(self):
        request = {"model": "llama-3.1-8b", "mode": "finetune", "devices": 8, "offload": "optimizer"}
        host, drives = (estimate(**request, **more).sections["finetune"] for more in ({}, {"offload_to": "nvme"}))
        assert "optimizer on the host" in host.setting
        assert "optimizer on NVMe drives" in drives.setting
        assert drives.quantities["offloaded_per_node"].mid == pytest.approx(8_030_261_248 * 12.0, rel=1e-3)
        assert drives.quantities["step_time"].mid > host.quantities["step_time"].mid
        assert "offloaded_per_node" not in estimate(**request | {"offload": None}).sections["finetune"].quantities

    @pytest.mark.parametrize(
        ("request_", "said"),
        [
            ({"offload_to": "nvme"}, "--offload-to nvme says where, not what"),
            ({"offload": "optimizer", "offload_to": "disk"}, "--offload-to is 'disk'"),
            ({"offload": "optimizer", "nvme_bandwidth": 1e9}, "add --offload-to nvme"),
        ],
    )
    def test_half_a_question_is_told_the_other_half(self, request_, said):
        with pytest.raises(InputError, match=said):
            estimate(model="llama-3.1-8b", mode="train", devices=8, **request_)


class TestRecomputation:
    def test_some_blocks_only(self):
        none, half, full = (
            run(Plan(dp=8.0, zero=1, recompute="full" if share else "none", recompute_share=share or 1.0))
            for share in (0.0, 0.5, 1.0)
        )
        assert half.time["recomputation"] == pytest.approx(full.time["recomputation"] / 2.0)
        middle = (none.memory["activations"] + full.memory["activations"]) / 2.0
        assert half.memory["activations"] == pytest.approx(middle)

    def test_named_parts_are_rebuilt_and_not_kept(self):
        plain = run(Plan(dp=8.0, ep=8.0), "deepseek-v3", batch=64)
        parts = [("norms",), ("activations",), ("latent",), ("norms", "latent"), ("experts",)]
        found = {
            part: run(Plan(dp=8.0, ep=8.0, recompute="selective", rebuilt=part), "deepseek-v3", batch=64)
            for part in parts
        }
        assert all(one.memory["activations"] < plain.memory["activations"] for one in found.values())
        assert all(one.time["recomputation"] > 0.0 for one in found.values())
        both, norms, latent = found["norms", "latent"], found["norms",], found["latent",]
        assert both.time["recomputation"] == pytest.approx(norms.time["recomputation"] + latent.time["recomputation"])
        saved = [plain.memory["activations"] - one.memory["activations"] for one in (both, norms, latent)]
        assert saved[0] == pytest.approx(saved[1] + saved[2])
        # The heads of latent attention: 128 of 192 + 192 + 128; what they come from is kept either way.
        heads = 61 * 4096 * 2 * 128 * (192 + 192 + 128)
        assert saved[2] == pytest.approx(heads)

    def test_inputs_kept_in_eight_bits_are_half(self):
        wide, narrow = (
            run(Plan(dp=8.0), batch=64, precision="fp8", saved_precision=one).memory["activations"]
            for one in ("bf16", "fp8")
        )
        # Three inner tensors of 14,336 a token in 32 layers.
        assert wide - narrow == pytest.approx(32 * 4096 * 14336 * 3)

    @pytest.mark.parametrize(
        ("request_", "said"),
        [
            ({"recompute": "norms,heads"}, "'heads'"),
            ({"recompute": "some"}, "'some'"),
            ({"saved_precision": "int4"}, "'int4'"),
            ({"mtp": True}, "has no multi-token-prediction heads"),
        ],
    )
    def test_what_is_not_known_is_named(self, request_, said):
        with pytest.raises(InputError, match=said):
            estimate(model="llama-3.1-8b", mode="train", devices=8, **request_)

    def test_heads_ahead_are_a_layer_and_another_pass_of_the_head(self):
        alone, ahead = (
            estimate(model="deepseek-v3", mode="train", devices=2048, pp=16, ep=64, tp=1, mtp=mtp).sections["train"]
            for mtp in (None, True)
        )
        head = "head, forward"
        assert ahead.breakdowns["work"][head] == 2.0 * alone.breakdowns["work"][head]
        more = ahead.quantities["checkpoint"].mid / alone.quantities["checkpoint"].mid
        assert more == pytest.approx(1.0 + 11.6 / 671.0, rel=2e-3)  # 14 billion less shared table and head


class TestOptimizers:
    def test_muon_takes_products(self):
        """Jordan 2024: five iterations of three products; of an m x n matrix about 30 m FLOP an element."""
        assert flops.newton_schulz_flop(4096.0 * 4096.0, 4096.0) == 30.0 * 4096.0**3
        adam, muon = (run(Plan(dp=8.0, zero=0), optimizer=name).time["optimizer"] for name in ("adamw", "muon"))
        assert muon > adam

    def test_fewer_states_move_fewer_bytes(self):
        times = [run(Plan(dp=8.0), optimizer=name).time["optimizer"] for name in ("sgd", "adamw-8bit", "adamw")]
        assert times[0] < times[1] < times[2]


class TestDistillation:
    def test_a_teacher_is_held_and_run_forward(self):
        alone = run(Plan(dp=8.0, zero=1, tp=1.0), batch=64)
        taught = run(Plan(dp=8.0, zero=1, tp=1.0), batch=64, teacher="llama-3.1-8b")
        assert taught.memory["teacher"] == pytest.approx(2.0 * 8_030_261_248)
        # A forward pass of the same model: a third of its products.
        assert taught.time["teacher"] == pytest.approx(alone.time["GEMM"] / 3.0, rel=0.6)
        assert taught.time["GEMM"] == alone.time["GEMM"]


class TestStacks:
    @pytest.mark.parametrize("name", stack_names())
    def test_every_stack_is_whole_and_prices(self, name):
        stack = load_stack(name)
        assert stack.title
        assert 0.0 < stack.sustained < 1.5
        assert 0.0 <= stack.routing_overlap < 1.0
        section = estimate(model="llama-3.1-8b", mode="train", devices=64, stack=name).sections["train"]
        assert section.quantities["step_time"].mid > 0.0

    def test_tuned_is_faster_than_eager(self):
        paces = [
            estimate(model="llama-3.1-8b", mode="train", devices=64, stack=name).sections["train"].quantities["mfu"].mid
            for name in ("eager", "tuned")
        ]
        assert paces[0] < paces[1]

    def test_rulers_see_more_from_tensor_to_driver(self):
        model = load_model("llama-3.1-8b")
        sums = weights_of(lower(model, Tokens()))
        parts = training_memory(model, sums, Workload(global_batch=8.0), Plan(dp=8.0, zero=3), 1.0, 1.5e9)
        seen = [as_seen(parts, ruler) for ruler in ("allocated", "reserved", "driver")]
        assert seen == sorted(seen)
        assert seen[-1] == pytest.approx(sum(parts.values()))

    def test_written_scores_are_five_bytes_each(self):
        """Korthikanti 2022: 5 a s^2 b of a layer; selective recomputation drops them."""
        model = load_model("gpt-3-175b")
        sums = weights_of(lower(model, Tokens()))
        work_ = Workload(seq_len=2048.0, global_batch=8.0)
        held = [
            training_memory(model, sums, work_, Plan(recompute=policy), 1.0, 0.0, fused_attention=fused)["activations"]
            for policy, fused in (("none", True), ("none", False), ("selective", True), ("selective", False))
        ]
        assert held[1] - held[0] == pytest.approx(96 * 5 * 96 * 2048**2)
        assert held[2] == held[3]


class TestPrecision:
    def test_a_quantised_base_is_smaller_and_slower(self):
        """QLoRA: weights of a quarter, unpacked in every pass and multiplied in 16 bits."""
        asked = {"model": "llama-3.1-8b", "mode": "lora", "devices": 1, "micro_batch": 1, "recompute": "full"}
        plain = estimate(**asked).sections["lora"]
        packed = estimate(**asked, precision="nvfp4").sections["lora"]
        assert packed.breakdowns["memory"]["weights"] < 0.5 * plain.breakdowns["memory"]["weights"]
        assert packed.breakdowns["time"]["casts"] > 0.0
        assert packed.quantities["step_time"].mid > plain.quantities["step_time"].mid

    def test_four_bits_train_faster_where_the_device_has_them(self):
        asked = {"model": "llama-3.1-70b", "mode": "train", "devices": 64, "device": "b200"}
        steps = [
            estimate(**asked, precision=one).sections["train"].quantities["step_time"].mid
            for one in ("bf16", "fp8", "nvfp4")
        ]
        assert steps[2] < steps[1] < steps[0]


def test_kin_of_an_architecture_keep_its_pace():
    """GB300 is Blackwell Ultra: it keeps Blackwell's pace, raised by its higher power limit."""
    from capacity.catalogue import load_device

    paces = [load_stack("tuned", load_device(name)).sustained for name in ("gb200", "gb300")]
    assert 1.0 < paces[1] / paces[0] < 1.15

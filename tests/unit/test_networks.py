"""`capacity estimate --module` and `--onnx`: what is read, priced, said and refused; laws of networks."""

import json
import math
import sys

import pytest
import torch
from networks import Attention, Dlrm, Recurrent, perceptron, resnet50
from torch import nn

import capacity
from capacity.catalogue import load_device
from capacity.catalogue.networks import load_network, network_names
from capacity.cli import main
from capacity.errors import CapacityError, FileFormatError, InputError
from capacity.estimators.network_answer import flop_of
from capacity.importers.graphs.module import InputSpec, read_input, read_target, trace
from capacity.importers.graphs.onnx_file import read_onnx
from capacity.laws.network import Machine, category, load_network_law, op_time_s
from capacity.record import replace
from capacity.spec.graph import BACKWARD, FORWARD

HERE = "networks:perceptron"


def ask(capsys, *arguments):
    status = main(["estimate", *arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_the_perceptron_of_the_readme(capsys):
    status, out, err = ask(
        capsys, "--module", HERE, "--input", "100x1000", "--optimizer", "adam", "--device", "rtx-4090", "--json"
    )
    assert status == 0
    assert "running your code" in err
    answer = json.loads(out)
    assert answer["model"]["parameters"] == 650_951
    train = answer["sections"]["train"]
    # 2 FLOP of each weight forward, as much again for inputs (not the first layer's) and for weights.
    weights = (1000 * 500, 500 * 250, 250 * 100, 100)
    assert train["quantities"]["flop_per_sample"]["mid"] == 2 * (3 * sum(weights) - weights[0])
    assert train["breakdowns"]["memory"]["optimizer"] == 650_951 * 8
    assert train["binding"] == "launch latency"
    step = train["quantities"]["step_time"]
    assert 1e-4 < step["low"] < step["mid"] < step["high"] < 1e-2


def test_text_and_derivation(capsys):
    status, out, _ = ask(capsys, "--module", HERE, "--input", "100x1000")
    assert status == 0
    assert "TRAINING" in out
    assert "INFERENCE" in out
    assert max(map(len, out.splitlines())) <= 80
    status, out, _ = ask(capsys, "--module", HERE, "--input", "100x1000", "--explain", "train.step_time")
    assert status == 0
    assert "network_step_s" in out
    assert "pass_time_s" in out


def test_python_callers_give_modules_and_tensors():
    network = nn.Linear(16, 4)
    answer = capacity.estimate(module=network, example_inputs=(torch.ones(8, 16),), device="a100-sxm-80gb")
    assert answer.sections["train"].quantities["forward_flop"].mid == 2 * 8 * 16 * 4
    assert network.weight.device.type == "cpu"  # the user's own module is left as it was
    named = capacity.estimate(module=Dlrm, input=("8x13", "8x26x3:int64"), mode="infer", device="l4")
    assert set(named.sections) == {"infer"}


def test_nothing_is_allocated():
    big = trace(
        lambda: nn.Sequential(*(nn.Linear(2**16, 2**16) for _ in range(4))), [InputSpec((2**20, 2**16))], train=True
    )
    assert big.parameters == 4 * (2**32 + 2**16)  # 69 GB of weights, 275 GB of activations


def test_what_autograd_keeps():
    graph = trace(
        lambda: nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)), [InputSpec((4, 10))], train=True
    )
    assert graph.saved_elements == 4 * 10 + 4 * 20  # the input, and one result of ReLU that both its neighbours use
    assert graph.peak_elements >= graph.saved_elements
    frozen = nn.Linear(10, 20)
    frozen.requires_grad_(requires_grad=False)
    graph = trace(nn.Sequential(frozen, nn.Linear(20, 5)), [InputSpec((4, 10))], train=True)
    assert (graph.parameters, graph.trained) == (325, 105)
    assert flop_of(graph, BACKWARD) == 2 * 4 * 20 * 5


REFUSED = {
    "no input": (["--module", HERE], "without --input"),
    "no such module": (["--module", "nowhere.at.all:make", "--input", "1"], "No module named"),
    "no such name": (["--module", "networks:nothing", "--input", "1"], "no attribute 'nothing'"),
    "no colon": (["--module", "networks", "--input", "1"], "names nothing"),
    "code after the colon": (["--module", "networks:perceptron(open('x'))", "--input", "1"], "literal arguments"),
    "a shape of words": (["--module", HERE, "--input", "axb"], "is no shape"),
    "nought": (["--module", HERE, "--input", "0x3"], "at least 1"),
    "a format nobody knows": (["--module", HERE, "--input", "1x2:int3"], "int3"),
    "the wrong shape": (["--module", HERE, "--input", "100x999"], "cannot be traced"),
    "no network": (["--module", "json:dumps", "--input", "1"], "cannot be traced"),
    "an option of language models": (["--module", HERE, "--input", "100x1000", "--seq-len", "5"], "language models"),
    "--input of another": (["--params", "7e9", "--input", "1x2"], "give --module or --onnx"),
    "a precision for serving": (["--module", HERE, "--input", "100x1000", "--precision", "int4"], "fp32, tf32, bf16, fp16"),
    "no file": (["--onnx", "nothing.onnx"], "No such file"),
    "two networks": (["--module", HERE, "--params", "7e9"], "give one of"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_line(capsys, name):
    arguments, said = REFUSED[name]
    status, out, err = ask(capsys, *arguments)
    lines = [line for line in err.splitlines() if "running your code" not in line]
    assert (status, out, len(lines)) == (2, "", 1)
    assert said in lines[0]


def test_a_target_is_read_without_running_it():
    target = read_target("pkg.sub:make.it('resnet50', classes=10)")
    assert (target.place, target.names, target.arguments, target.named) == (
        "pkg.sub",
        ("make", "it"),
        ("resnet50",),
        {"classes": 10},
    )
    assert "pkg" not in sys.modules
    with pytest.raises(InputError):
        read_target("pkg:make(*x)")


def test_inputs_by_name_and_format():
    spec = read_input("ids=4x128:long")
    assert (spec.name, spec.shape, spec.dtype) == ("ids", (4, 128), "int64")


def exported(module, inputs, path, **options):
    torch.onnx.export(module.eval(), inputs, path, dynamo=False, **options)
    return str(path)


def product(graph):
    return flop_of(graph, FORWARD)


@pytest.mark.filterwarnings("ignore")
def test_onnx_round_trips_count_the_same(tmp_path):
    cases = (
        (perceptron(), (torch.zeros(2, 1000),), ("6x1000",)),
        (resnet50(groups=32), (torch.zeros(2, 3, 64, 64),), ("6x3x64x64",)),
        (Recurrent(both=True), (torch.zeros(2, 20, 64),), ("6x20x64",)),
        (Attention(64, 4), (torch.zeros(2, 16, 64),), ("6x16x64",)),
    )
    for at, (network, inputs, shapes) in enumerate(cases):
        path = exported(network, inputs, tmp_path / f"{at}.onnx", input_names=["x"], dynamic_axes={"x": {0: "batch"}})
        graph = read_onnx(path, {"batch": 6}, train=True)
        traced = trace(network, [read_input(one) for one in shapes], train=True)
        assert product(graph) == product(traced)
        assert flop_of(graph, BACKWARD) == flop_of(traced, BACKWARD)
        assert graph.unknown == {}
        assert graph.batch == 6
    with pytest.raises(InputError, match="--dim batch=N"):
        read_onnx(path, {}, train=False)
    with pytest.raises(InputError, match="no dynamic axis"):
        read_onnx(path, {"batch": 6, "width": 3}, train=False)


def test_onnx_of_unknown_operators_says_so(tmp_path, capsys):
    from onnx import TensorProto, helper, save

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])
    nodes = [helper.make_node("Relu", ["x"], ["z"]), helper.make_node("Strange", ["z"], ["y"], domain="mine")]
    graph = helper.make_graph(nodes, "g", [x], [y])
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]),
        tmp_path / "s.onnx",
    )
    status, out, _ = ask(capsys, "--onnx", str(tmp_path / "s.onnx"), "--mode", "infer")
    assert status == 0
    assert "Strange" in out
    for name, data in (("text", b"no onnx at all"), ("empty", b""), ("noise", bytes(range(256)) * 8)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FileFormatError):
            read_onnx(str(tmp_path / name), {}, train=False)


def test_checkpoints_on_the_command_line(tmp_path, capsys):
    torch.save(nn.Linear(1000, 1000).state_dict(), tmp_path / "x.pt")
    status, out, _ = ask(capsys, "--checkpoint", str(tmp_path / "x.pt"), "--json")
    answer = json.loads(out)
    assert (status, answer["model"]["tensors"]["weight"]["bytes"]) == (0, 4e6)
    assert answer["sections"]["checkpoint"]["quantities"]["weight_bytes"]["mid"] == 4_004_000


@pytest.fixture(scope="module")
def machine():
    return Machine(300e12, 300e12, 19e12, 2e12, 108.0, 400.0, last=1.0)


def test_laws_do_what_hardware_does(machine):
    law = load_network_law(load_device("a100-sxm-80gb"))
    graph = trace(resnet50, [InputSpec((64, 3, 224, 224))], train=True)
    for op in graph.ops:
        name = category(op)
        seconds = op_time_s(op, name, law, machine)
        assert 0.0 < seconds < 0.1
        # Never faster than the datasheet allows by more than caches and clocks can add.
        twice = replace(op, m=op.m * 2, elements=op.elements * 2)
        assert seconds <= op_time_s(twice, name, law, machine) <= 2.05 * seconds
        if op.kind == "conv":
            first = op_time_s(op, name, law, replace(machine, last=0.0))
            assert first >= seconds


def test_columns_and_floats_agree(machine):
    np = pytest.importorskip("numpy")
    law = load_network_law(load_device("a100-sxm-80gb"))
    op = next(op for op in trace(resnet50, [InputSpec((2, 3, 64, 64))], train=False).ops if op.kind == "conv")
    batches = np.array([1.0, 7.0, 64.0])
    column = op_time_s(replace(op, m=op.m * batches, elements=op.elements * batches), "conv", law, machine)
    each = [op_time_s(replace(op, m=op.m * one, elements=op.elements * one), "conv", law, machine) for one in batches]
    assert column == pytest.approx(each, rel=1e-12)


def test_the_catalogue_of_networks_is_what_tracing_gives():
    assert len(network_names()) >= 600
    kept, traced = load_network("tv.resnet50", 6.0), trace(resnet50, [InputSpec((6, 3, 224, 224))], train=True)
    assert kept.parameters == traced.parameters
    assert (flop_of(kept, FORWARD), flop_of(kept, BACKWARD)) == (flop_of(traced, FORWARD), flop_of(traced, BACKWARD))
    # A larger picture: by area, what padding adds is not followed.
    wide = trace(resnet50, [InputSpec((6, 3, 320, 320))], train=False)
    assert flop_of(load_network("resnet50", 6.0, 320.0), FORWARD) == pytest.approx(flop_of(wide, FORWARD), rel=0.03)
    with pytest.raises(CapacityError, match="unknown network"):
        load_network("no_such_network_anywhere")


def test_scores_of_vision():
    validation = pytest.importorskip("capacity.validation")
    scores = validation.validate("vision")
    assert scores["overall"]["n"] > 150
    assert scores["overall"]["priced"] == scores["overall"]["n"]
    assert scores["overall"]["mdape"] < 0.2
    assert scores["overall"]["mdape"] < scores["overall"]["baseline_mdape"] / 2
    assert scores["rank_correlation"]["median"] > 0.9


def test_rows_of_any_kind_are_counted(tmp_path):
    pandas = pytest.importorskip("pandas")
    from capacity.validation import validate

    row = {
        "mode": "infer",
        "model": "resnet50",
        "device": "RTX4090",
        "images_per_s": 4000.0,
        "batch_per_device": 256,
        "dtype": "AMP fp16",
    }
    rows = [
        row, row | {"device": "no such chip"}, row | {"model": "new_net", "gmacs": 4.1, "params_m": 25.0, "mactivations": 11.0, "img_size": 224},
        row | {"model": "new_net"}, row | {"images_per_s": None}, {"mode": None, "model": None, "device": None, "images_per_s": "x"},
        row | {"batch_per_device": None, "dtype": None, "img_size": 320}, row | {"device": "CPU i9-10940X", "dtype": "fp32"},
    ]  # fmt: skip
    file = tmp_path / "rows.csv"
    pandas.DataFrame(rows).to_csv(file, index=False)
    scores = validate("vision", str(file))
    found = scores["rows"]
    assert len(found) == len(rows)
    assert found["mid"].notna().tolist() == [True, False, True, False, False, False, True, True]
    assert (found["why"] != "").tolist() == [False, True, False, True, True, True, False, False]
    assert math.isfinite(scores["overall"]["mdape"])
    assert scores["overall"]["priced"] == 3  # what was measured on GPUs and has an answer

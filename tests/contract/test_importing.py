"""The roads of docs/importing.md: models of other frameworks, exported for real, become estimates."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from capacity.cli import main
from capacity.estimators.network_answer import flop_of
from capacity.importers.graphs.onnx_file import read_onnx
from capacity.spec.graph import FORWARD

KERAS = """
import sys, numpy, keras
from keras import layers
model = keras.Sequential([
    keras.Input((32, 32, 3)), layers.Conv2D(16, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
    layers.SeparableConv2D(32, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax"),
])
model(numpy.zeros((2, 32, 32, 3), "float32"))
model.export(sys.argv[1], format="onnx", verbose=False)
print(model.count_params())
"""


def test_a_keras_model(tmp_path):
    if find_spec("keras") is None:
        pytest.skip("keras is not installed")
    path = tmp_path / "keras.onnx"
    environment = os.environ | {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [sys.executable, "-c", KERAS, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    graph = read_onnx(str(path), {"batch": 8}, train=False)
    assert graph.parameters == float(run.stdout.split()[-1]) == 1466
    # Multiply-adds by hand: a convolution on 32 x 32, a depthwise and a pointwise one on 14 x 14, a product.
    macs = 32 * 32 * 16 * 27 + 14 * 14 * (16 * 9 + 16 * 32) + 32 * 10
    assert flop_of(graph, FORWARD) == 2 * 8 * macs
    assert graph.unknown == {}


def test_scikit_learn_models(tmp_path, capsys):
    sklearn = pytest.importorskip("sklearn.neural_network")
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.exceptions import ConvergenceWarning

    x = np.random.default_rng(0).random((60, 20)).astype("float32")
    y = np.arange(60) % 3
    with pytest.warns(ConvergenceWarning):
        layers = sklearn.MLPClassifier((64, 32), max_iter=2).fit(x, y)
    (tmp_path / "mlp.onnx").write_bytes(to_onnx(layers, x[:1]).SerializeToString())
    graph = read_onnx(str(tmp_path / "mlp.onnx"), {"X.0": 100}, train=False)
    assert flop_of(graph, FORWARD) == 2 * 100 * (20 * 64 + 64 * 32 + 32 * 3)
    # Trees multiply nothing: what is not counted is named.
    (tmp_path / "trees.onnx").write_bytes(to_onnx(RandomForestClassifier(5).fit(x, y), x[:1]).SerializeToString())
    assert (
        main(["estimate", "--onnx", str(tmp_path / "trees.onnx"), "--dim", "X.0=100", "--mode", "infer", "--json"]) == 0
    )
    answer = json.loads(capsys.readouterr().out)
    assert "TreeEnsembleClassifier" in " ".join(answer["warnings"])

"""Parameters and FLOPs of networks of every kind equal what torch counts, on the meta device."""

import pytest
import torch
from networks import Cells, DiffusionUNet, Dlrm, Recurrent, perceptron, resnet50, volume, waveform
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from capacity.estimators.network_answer import flop_of
from capacity.importers.graphs.module import InputSpec, read_input, trace
from capacity.importers.graphs.tracer import quiet
from capacity.spec.graph import BACKWARD, FORWARD

IMAGE = ("2x3x64x64",)


def config(name, **values):
    """A small network of a transformers architecture: its own layers at full kind and small size."""

    def make():
        import transformers

        kind = getattr(transformers, f"{name}Config")
        settings = kind(**values)
        model = getattr(transformers, MODELS.get(name, f"{name}Model"))
        settings._attn_implementation = "sdpa" if model._supports_sdpa else "eager"
        return model(settings)

    return make


MODELS = {
    "Segformer": "SegformerForSemanticSegmentation", "GLPN": "GLPNForDepthEstimation", "DPT": "DPTForDepthEstimation",
    "Yolos": "YolosForObjectDetection", "ResNet": "ResNetForImageClassification",
    "HGNetV2": "HGNetV2ForImageClassification",
}  # fmt: skip
SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
VIT = SMALL | {"image_size": 64, "patch_size": 16}
TEXT = ("2x24:int64",)
SOUND = ("1x4000",)

# name: what makes it, its inputs, and whether its backward pass is compared (torch's counter takes the groups of a
# convolution's weight gradient for one, and unrolls recurrent layers).
NETWORKS = {
    "perceptron": (perceptron, ("100x1000",), True),
    "resnet50": (resnet50, ("2x3x224x224",), True),
    "resnext50 32x4d": (lambda: resnet50(groups=32), IMAGE, False),
    "dlrm": (Dlrm, ("8x13", "8x26x3:int64"), True),
    "diffusion u-net": (DiffusionUNet, ("1x4x64x64", "1", "1x77x768"), True),
    "3d u-net part": (volume, ("1x1x16x16x16",), True),
    "waveform": (waveform, ("2x1x4000",), False),
    "lstm": (Recurrent, ("3x20x64",), False),
    "lstm both ways": (lambda: Recurrent(both=True), ("3x20x64",), False),
    "lstm projected": (lambda: Recurrent(projection=32), ("3x20x64",), False),
    "gru": (lambda: Recurrent("GRU"), ("3x20x64",), False),
    "rnn": (lambda: Recurrent("RNN"), ("3x20x64",), False),
    "lstm cells": (Cells, ("4x9x32",), False),
    "gru cells": (lambda: Cells(nn.GRUCell), ("4x9x32",), False),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), ("2x16x64",), True),
    "transformer decoder": (lambda: nn.TransformerDecoderLayer(64, 4, 128, batch_first=True), ("tgt=2x16x64", "memory=2x9x64"), True),
    "bilinear": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding="same", dilation=3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.PixelShuffle(2)), IMAGE, True),
    "ResNet": (config("ResNet", embedding_size=32, hidden_sizes=[64, 128], depths=[2, 2]), IMAGE, True),
    "RegNet": (config("RegNet", embedding_size=32, hidden_sizes=[64, 128, 128, 128], depths=[1, 1, 1, 1], groups_width=16), IMAGE, False),
    "ConvNext": (config("ConvNext", hidden_sizes=[24, 48, 96, 96], depths=[1, 1, 2, 1]), IMAGE, False),
    "ConvNextV2": (config("ConvNextV2", hidden_sizes=[24, 48, 96, 96], depths=[1, 1, 2, 1]), IMAGE, False),
    "MobileNetV1": (config("MobileNetV1"), IMAGE, False),
    "MobileNetV2": (config("MobileNetV2"), IMAGE, False),
    "EfficientNet": (config("EfficientNet", image_size=64), IMAGE, False),
    "Bit": (config("Bit", num_groups=8, hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 1, 1]), IMAGE, False),
    "Cvt": (config("Cvt"), IMAGE, False),
    "Levit": (config("Levit", image_size=64, patch_size=16), IMAGE, True),
    "MobileViT": (config("MobileViT", image_size=64), IMAGE, False),
    "MobileViTV2": (config("MobileViTV2", image_size=64), IMAGE, False),
    "PoolFormer": (config("PoolFormer"), IMAGE, True),
    "Pvt": (config("Pvt", image_size=64), IMAGE, False),
    "PvtV2": (config("PvtV2", image_size=64), IMAGE, False),
    "FocalNet": (config("FocalNet", image_size=64), IMAGE, False),
    "HGNetV2": (config("HGNetV2"), IMAGE, False),
    "SwiftFormer": (config("SwiftFormer"), IMAGE, False),
    "ViT": (config("ViT", **VIT), IMAGE, True),
    "DeiT": (config("DeiT", **VIT), IMAGE, True),
    "BEiT": (config("Beit", **VIT), IMAGE, True),
    "Dinov2": (config("Dinov2", **{k: v for k, v in VIT.items() if k != "intermediate_size"}), IMAGE, True),
    "Dinov2 registers": (config("Dinov2WithRegisters", **{k: v for k, v in VIT.items() if k != "intermediate_size"}), IMAGE, True),
    "ViT MSN": (config("ViTMSN", **VIT), IMAGE, True),
    "Data2Vec vision": (config("Data2VecVision", **VIT), IMAGE, True),
    "I-JEPA": (config("IJepa", **VIT), IMAGE, True),
    "SigLIP vision": (config("SiglipVision", **VIT), IMAGE, True),
    "CLIP vision": (config("CLIPVision", **VIT), IMAGE, True),
    "Swin": (config("Swin", image_size=64, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4), IMAGE, True),
    "Swinv2": (config("Swinv2", image_size=64, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4), IMAGE, True),
    "Swin2SR": (config("Swin2SR", image_size=64, embed_dim=24, depths=[2, 2], num_heads=[2, 2], window_size=8), IMAGE, True),
    "Hiera": (config("Hiera", image_size=[64, 64], embed_dim=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]), IMAGE, True),
    "YOLOS (detection)": (config("Yolos", **VIT | {"image_size": [64, 64]}), IMAGE, True),
    "SegFormer (segmentation)": (config("Segformer"), IMAGE, False),
    "GLPN (depth)": (config("GLPN"), IMAGE, False),
    "DPT (depth)": (config("DPT", **VIT | {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "image_size": 64, "fusion_hidden_size": 32, "neck_hidden_sizes": [24, 48, 96, 96]}), IMAGE, True),
    "Whisper": (config("Whisper", d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, vocab_size=500, max_source_positions=100, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1), ("input_features=1x80x200", "decoder_input_ids=1x8:int64"), True),
    "wav2vec 2": (config("Wav2Vec2", **SMALL, mask_time_prob=0.0, apply_spec_augment=False), SOUND, False),
    "HuBERT": (config("Hubert", **SMALL, mask_time_prob=0.0, apply_spec_augment=False), SOUND, False),
    "UniSpeech": (config("UniSpeech", **SMALL, mask_time_prob=0.0, apply_spec_augment=False), SOUND, False),
    "Speech2Text": (config("Speech2Text", d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, vocab_size=100, max_source_positions=100), ("input_features=1x100x80", "decoder_input_ids=1x8:int64"), False),
    "AST (sound)": (config("AST", **SMALL, max_length=64, num_mel_bins=32), ("1x64x32",), True),
    "BERT": (config("Bert", **SMALL, vocab_size=500), TEXT, True),
    "ALBERT": (config("Albert", **SMALL, vocab_size=500), TEXT, True),
    "ELECTRA": (config("Electra", **SMALL, vocab_size=500), TEXT, True),
    "DistilBERT": (config("DistilBert", dim=48, n_layers=2, n_heads=4, hidden_dim=96, vocab_size=500), TEXT, True),
    "T5": (config("T5", d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, vocab_size=500), ("input_ids=2x12:int64", "decoder_input_ids=2x7:int64"), True),
    "BART": (config("Bart", d_model=48, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=96, vocab_size=500), ("input_ids=2x12:int64", "decoder_input_ids=2x7:int64"), True),
    "GPT-2": (config("GPT2", n_embd=48, n_layer=2, n_head=4, vocab_size=500), TEXT, True),
    "OPT": (config("OPT", hidden_size=48, num_hidden_layers=2, num_attention_heads=4, ffn_dim=96, vocab_size=500, word_embed_proj_dim=48), TEXT, True),
}  # fmt: skip


def counted(make, specs, *, train):
    """Parameters, and FLOPs as torch's own counter has them."""
    with quiet(), torch.device("meta"):
        network = make()
    network.to("meta").train(train)
    made = [(spec.name, torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta")) for spec in specs]
    with quiet(), FlopCounterMode(display=False) as counter, torch.set_grad_enabled(train):
        result = network(
            *(tensor for name, tensor in made if not name), **{name: tensor for name, tensor in made if name}
        )
        if train:
            leaves = [
                one
                for one in torch.utils._pytree.tree_leaves(result)
                if isinstance(one, torch.Tensor) and one.requires_grad
            ]
            torch.autograd.backward(leaves, [torch.empty_like(one) for one in leaves])
    return sum(one.numel() for one in network.parameters()), counter.get_total_flops()


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_flops_are_those_torch_counts(name):
    make, inputs, backward = NETWORKS[name]
    specs = [read_input(one) for one in inputs]
    graph = trace(make, specs, train=backward)
    parameters, flop = counted(make, specs, train=backward)
    assert graph.parameters == parameters
    assert flop_of(graph, FORWARD) + flop_of(graph, BACKWARD) == flop
    assert flop > 0


def test_there_are_sixty_of_every_kind():
    assert len(NETWORKS) >= 60


def test_published_sizes():
    assert trace(resnet50, [InputSpec((1, 3, 224, 224))], train=False).parameters == 25_557_032
    assert (
        trace(DiffusionUNet, [read_input(one) for one in NETWORKS["diffusion u-net"][1]], train=False).parameters
        == 859_520_964
    )


@pytest.mark.parametrize("kind", ["timm", "torchvision"])
def test_published_classes_where_they_are_installed(kind):
    pytest.importorskip("torchvision_ops")
    module = pytest.importorskip(kind, exc_type=(ImportError, RuntimeError))
    names = {
        "timm": ("resnet18", "convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"),
        "torchvision": ("mobilenet_v2", "squeezenet1_1"),
    }
    for name in names[kind]:
        make = (
            (lambda one=name: module.create_model(one))
            if kind == "timm"
            else (lambda one=name: module.models.get_model(one))
        )
        graph = trace(make, [InputSpec((1, 3, 224, 224))], train=False)
        assert (graph.parameters, flop_of(graph, FORWARD)) == counted(make, [InputSpec((1, 3, 224, 224))], train=False)

"""llama.cpp: the decoder written as a GGUF file, in 16 bits and in blocks of 8 and 4."""

from __future__ import annotations

import os

from capacity.measurement.backends import Session
from capacity.measurement.case import NotSupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.measurement.backends import Task
    from capacity.measurement.workloads.decoder import Decoder

# The decoder has no rotary embedding. Positions divided by this much turn nothing, and cost what they always cost.
NO_ROTATION = 1e30
# llama.cpp makes contexts of 256 tokens and more.
LEAST_CONTEXT = 256
FORMS = {"f16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0"}


class LlamaCpp:
    """llama.cpp through llama-cpp-python."""

    name = "llama.cpp"
    packages = {"llama_cpp": "llama-cpp-python", "gguf": "gguf"}
    # Blocks of 32 weights share a scale in 16 bits.
    bits = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}
    devices = ("cpu",)
    traced = False

    def load(self, decoder: Decoder, task: Task) -> Session:
        """A context with the past in its cache; each pass takes back what the one before added."""
        import numpy as np
        import torch
        from llama_cpp import Llama

        batch, length = task.tokens.shape
        if batch != 1:
            raise NotSupportedError("llama.cpp is measured with one sequence")
        path = os.path.join(task.folder, f"decoder-{task.form}.gguf")
        weights = write_gguf(decoder, path, task.form)
        past = [] if task.past is None else task.past[0].tolist()
        tokens = task.tokens[0].tolist()
        model = Llama(
            path, n_ctx=len(past) + length, n_batch=max(len(past), length), n_ubatch=max(len(past), length),
            n_threads=task.threads, n_threads_batch=task.threads, verbose=False,
        )  # fmt: skip
        if past:
            model.eval(past)

        def run() -> None:
            model.n_tokens = len(past)
            model.eval(tokens)

        def scores() -> Any:
            run()
            vocabulary = model.n_vocab()
            # Only the last token's scores are computed, and they lie at the front.
            return torch.from_numpy(np.ctypeslib.as_array(model._ctx.get_logits(), shape=(vocabulary,)).copy())[None]

        return Session(
            run=run, scores=scores, weight_bytes=weights * self.bits[task.form] / 8.0, disk_bytes=float(os.path.getsize(path)),
            close=model.close,
        )  # fmt: skip


def write_gguf(decoder: Decoder, path: str, form: str) -> int:
    """Write the decoder in llama's layout; returns the weights of all products."""
    import gguf

    layers, width, inner, vocabulary, tokens, _ = decoder.arguments
    heads = decoder.layers[0].heads
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(max(tokens, LEAST_CONTEXT))
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1.1920929e-07)
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(NO_ROTATION)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("no_vocab")
    kind = gguf.GGMLQuantizationType[FORMS[form]]
    products = 0

    def add(name: str, weight: Any) -> None:
        nonlocal products
        numbers = weight.detach().float().numpy()
        if numbers.ndim == 1:
            writer.add_tensor(name + ".weight", numbers)
            return
        look_up = name == "token_embd"
        products += 0 if look_up else numbers.size
        stored = gguf.GGMLQuantizationType.F16 if look_up else kind
        writer.add_tensor(name + ".weight", gguf.quants.quantize(numbers, stored), raw_dtype=stored)

    add("token_embd", decoder.tokens.weight)
    for index, layer in enumerate(decoder.layers):
        queries, keys, values = layer.qkv.weight.chunk(3)
        gate, up = layer.up.weight.chunk(2)
        for name, weight in (
            ("attn_norm", layer.norm_1.weight), ("attn_q", queries), ("attn_k", keys), ("attn_v", values),
            ("attn_output", layer.out.weight), ("ffn_norm", layer.norm_2.weight), ("ffn_gate", gate), ("ffn_up", up),
            ("ffn_down", layer.down.weight),
        ):  # fmt: skip
            add(f"blk.{index}.{name}", weight)
    add("output_norm", decoder.norm.weight)
    add("output", decoder.head.weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return products

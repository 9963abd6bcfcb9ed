"""Decoders whose layers are attention and one dense feed-forward network."""

from __future__ import annotations

from functools import partial

from capacity.importers.huggingface.layers import Family, decoder

BIAS = ("attention_bias", False)
MLP_BIAS = ("mlp_bias", False)
USE_BIAS = ("use_bias", False)

FAMILIES = {
    "apertus": Family(qkv_bias=BIAS, out_bias=BIAS, qk_norm="head", gated=False, dense_vectors=2),
    "arcee": Family(qkv_bias=BIAS, out_bias=BIAS, mlp_bias=MLP_BIAS, gated=False),
    "cohere": Family(
        norms=1, qkv_bias=BIAS, out_bias=BIAS, qk_norm="all", qk_norm_if=("use_qk_norm", False), tied=True
    ),
    "cohere2": Family(norms=1, qkv_bias=BIAS, out_bias=BIAS, tied=True, windows=4),
    "cwm": Family(head=128, kv=8, windows=-4, window=8192),
    "ernie4_5": Family(qkv_bias=USE_BIAS, out_bias=USE_BIAS, mlp_bias=USE_BIAS, head=128, kv=2, tied=True),
    "exaone4": Family(qk_norm="head", windows=4),
    "gemma": Family(qkv_bias=BIAS, out_bias=BIAS, head=256, tied=True),
    "gemma2": Family(norms=4, qkv_bias=BIAS, out_bias=BIAS, head=256, kv=4, tied=True, windows=2),
    "gemma3_text": Family(norms=4, qkv_bias=BIAS, out_bias=BIAS, qk_norm="head", head=256, kv=4, tied=True, windows=6),
    "glm": Family(qkv_bias=("attention_bias", True), head=128, kv=2, rotary=0.5),
    "glm4": Family(norms=4, qkv_bias=("attention_bias", True), head=128, kv=2, rotary=0.5),
    "granite": Family(qkv_bias=BIAS, out_bias=BIAS, mlp_bias=MLP_BIAS),
    "granite_swa": Family(
        qkv_bias=BIAS, out_bias=BIAS, mlp_bias=MLP_BIAS, kv=4, tied=True, sinks=True, windows=-4, window=128
    ),
    "helium": Family(qkv_bias=BIAS, mlp_bias=MLP_BIAS, head=128),
    "hunyuan_v1_dense": Family(qkv_bias=BIAS, out_bias=BIAS, qk_norm="head"),
    "hyperclovax": Family(
        qkv_bias=BIAS, out_bias=BIAS, mlp_bias=MLP_BIAS, more_norms=2.0, more_norms_if=("use_post_norm", True)
    ),
    "internlm3": Family(
        qkv_bias=("attention_bias|qkv_bias", False),
        out_bias=("attention_bias|qkv_bias", False),
        mlp_bias=("mlp_bias|bias", False),
        head=128,
        kv=2,
    ),
    "iquestcoder": Family(qkv_bias=BIAS, out_bias=BIAS, mlp_bias=MLP_BIAS, head=128, kv=8),
    "jais2": Family(
        norms=4,
        final_norm=2,
        qkv_bias=("attention_bias", True),
        out_bias=("attention_bias", True),
        mlp_bias=("mlp_bias", True),
        gated=False,
    ),
    "llama": Family(qkv_bias=BIAS, out_bias=BIAS, mlp_bias=MLP_BIAS),
    "mimo": Family(qkv_bias=("attention_bias", True), mtp=True),
    "ministral": Family(kv=8, windows="all"),
    "ministral3": Family(head=128, kv=8),
    "mistral": Family(kv=8, windows="all"),
    "nanochat": Family(norms=0, final_norm=0, qkv_bias=BIAS, out_bias=BIAS, gated=False),
    "nemotron": Family(norms=4, final_norm=2, qkv_bias=BIAS, out_bias=BIAS, mlp_bias=MLP_BIAS, gated=False, rotary=0.5),
    "olmo": Family(norms=0, final_norm=0, qkv_bias=BIAS, out_bias=BIAS),
    "olmo2": Family(qkv_bias=BIAS, out_bias=BIAS, qk_norm="all"),
    "olmo3": Family(qkv_bias=BIAS, out_bias=BIAS, qk_norm="all", windows=4),
    "phi3": Family(windows="all", window=0),
    "qwen2": Family(qkv_bias=True, windows="above"),
    "qwen3": Family(qkv_bias=BIAS, out_bias=BIAS, qk_norm="head", head=128, windows="above"),
    "qwen3_vl_text": Family(qkv_bias=BIAS, out_bias=BIAS, qk_norm="head", head=128),
    "seed_oss": Family(
        qkv_bias=("attention_bias", True), out_bias=("attention_out_bias", False), mlp_bias=MLP_BIAS, head=128, kv=8
    ),
    "smollm3": Family(qkv_bias=BIAS, out_bias=BIAS, mlp_bias=MLP_BIAS, kv=4, tied=True),
    "stablelm": Family(
        norms=4,
        final_norm=2,
        qkv_bias=("use_qkv_bias", False),
        qk_norm="all",
        qk_norm_if=("qk_layernorm", False),
        rotary=0.25,
    ),
    "starcoder2": Family(
        norms=4,
        final_norm=2,
        qkv_bias=("use_bias", True),
        out_bias=("use_bias", True),
        mlp_bias=("use_bias", True),
        gated=False,
        kv=2,
        tied=True,
        windows="all",
        window=0,
    ),
    "vaultgemma": Family(qkv_bias=BIAS, out_bias=BIAS, head=256, kv=4, tied=True, windows=2),
}

ADAPTERS = {kind: partial(decoder, family=family) for kind, family in FAMILIES.items()}

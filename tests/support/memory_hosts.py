"""Modules of memory attention, and what they are called with."""

import copy

import pytest
import torch
from hosts import randomised

from fastprompt.nn.parts import host_path

SIDE, POINTERS = (8, 9), 8  # columns and rows of a frame


def transformers_host(name, layers=2, **options):
    package = {"Sam2Video": "sam2_video", "Sam3TrackerVideo": "sam3_tracker_video", "EdgeTamVideo": "edgetam_video"}
    module = pytest.importorskip(f"transformers.models.{package[name]}.modeling_{package[name]}")
    import transformers

    sizes = {"memory_attention_num_layers": layers, "memory_attention_rope_feat_sizes": list(SIDE)}
    if name == "EdgeTamVideo":
        sizes["memory_attention_rope_k_sizes"] = [4, 3]
    config = getattr(transformers, f"{name}Config")()
    for key, value in (sizes | options).items():
        setattr(config, key, value)
    config._attn_implementation = "eager"
    return randomised(getattr(module, f"{name}MemoryAttention")(config))


def sam2_host(layers=2, side=(8, 9), **options):
    memory = pytest.importorskip("sam2.modeling.memory_attention")
    from sam2.modeling.sam.transformer import RoPEAttention

    made = {"embedding_dim": 256, "num_heads": 1, "downsample_rate": 1, "dropout": 0.1, "feat_sizes": side}
    switches = {"pos_enc_at_attn": False, "pos_enc_at_cross_attn_keys": True, "pos_enc_at_cross_attn_queries": False}
    layer = memory.MemoryAttentionLayer(
        **{"activation": "relu", "d_model": 256, "dim_feedforward": 192, "dropout": 0.1} | switches | options,
        self_attention=RoPEAttention(**made),
        cross_attention=RoPEAttention(**made, rope_k_repeat=True, kv_in_dim=64),
    )
    return randomised(memory.MemoryAttention(256, True, layer, layers))


HOSTS = {
    "Sam2Video": lambda **o: transformers_host("Sam2Video", **o),
    "Sam3TrackerVideo": lambda **o: transformers_host("Sam3TrackerVideo", **o),
    "EdgeTamVideo": lambda **o: transformers_host("EdgeTamVideo", **o),
    "sam2": sam2_host,
}


def inputs(objects=1, frames=3, pointers=POINTERS, positions=True, seed=0, tokens=72, each=None):
    """``each``: tokens of a frame of the memory."""
    g = torch.Generator().manual_seed(seed)
    count = frames * (each or tokens) + pointers
    shapes = (tokens, objects, 256), (count, objects, 64), (tokens, objects, 256), (count, objects, 64)
    features, memory, where, where_in_memory = (torch.randn(s, generator=g) for s in shapes)
    return features, memory, where if positions else None, where_in_memory, pointers, frames


def run(module, given, dtype=None):
    features, memory, positions, memory_positions, pointers, frames = given
    tensors = [
        x if x is None or dtype is None else x.to(dtype) for x in (features, memory, positions, memory_positions)
    ]
    further = [frames] if "EdgeTam" in type(module).__name__ else []
    with torch.no_grad():
        return module(*tensors, pointers, *further)


def of(name, **options):
    """Arguments that fit the host: EdgeTAM's frames are 5 latents and 12 places."""
    return inputs(**options, **({"each": 17} if name == "EdgeTamVideo" else {}))


def wide(host):
    """The host in float64; sam2's tables are no buffers."""
    twin = copy.deepcopy(host).double()
    for module in twin.modules():
        if hasattr(module, "freqs_cis"):
            module.freqs_cis = module.freqs_cis.to(torch.complex128)
    return twin


def error(module, host, given):
    got, plain, want = run(module, given), run(host, given), run(wide(host), given, torch.float64)
    assert got.shape == plain.shape
    assert got.dtype == plain.dtype
    return float((got - want).abs().max() / want.std())


@pytest.fixture
def no_host_path(monkeypatch):
    """An error where a call takes the host's path."""

    def refuse(text):
        raise AssertionError(text)

    monkeypatch.setattr(host_path, "say_once", refuse)

"""Image encoders with random weights, and pruning as it reads, for the tests of pruned models."""

import pytest
import torch
import transformers
from hosts import image_encoder, randomised

SIZE, WINDOW, GLOBAL, DEPTH = 13, 3, (1, 3), 4  # 13 x 13 tokens: 5 x 5 windows, those at the far sides 1 wide


def close(got, want, tolerance=1e-5):
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def transformers_encoder(package, prefix, attention="sdpa", **options):
    module = pytest.importorskip(f"transformers.models.{package}.modeling_{package}")
    settings = {
        "image_size": 16 * SIZE, "hidden_size": 32, "num_hidden_layers": DEPTH, "num_attention_heads": 2, "mlp_dim": 48,
        "output_channels": 8, "window_size": WINDOW, "global_attn_indexes": list(GLOBAL), "attn_implementation": attention,
    }  # fmt: skip
    config = getattr(transformers, f"{prefix}VisionConfig")(**settings | options)
    return randomised(getattr(module, f"{prefix}VisionEncoder")(config))


def vit(module, **options):
    settings = {
        "img_size": 16 * SIZE, "embed_dim": 32, "depth": DEPTH, "num_heads": 2, "mlp_ratio": 1.5, "out_chans": 8,
        "use_rel_pos": True, "window_size": WINDOW, "global_attn_indexes": GLOBAL,
    }  # fmt: skip
    return randomised(module.ImageEncoderViT(**settings | options))


ENCODERS = {
    "transformers eager": lambda **o: transformers_encoder("sam", "Sam", "eager", **o),
    "transformers sdpa": lambda **o: transformers_encoder("sam", "Sam", **o),
    "transformers hq": lambda **o: transformers_encoder("sam_hq", "SamHQ", **o),
    "segment_anything": lambda: vit(image_encoder()),
    "segment_anything without bias": lambda: vit(image_encoder(), qkv_bias=False, use_abs_pos=False),
}


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are too small for more; on a busy machine waiting for the other threads would be most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(batch=2, size=16 * SIZE, seed=1):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def parts(encoder):
    """Tokens of pictures (B, h, w, C), the layers, and what comes behind them."""
    layers = getattr(encoder, "layers", None) or encoder.blocks
    behind = encoder.neck if hasattr(encoder, "config") else lambda x: encoder.neck(x.permute(0, 3, 1, 2))
    absolute = 0 if encoder.pos_embed is None else encoder.pos_embed
    return lambda x: encoder.patch_embed(x) + absolute, layers, behind


def embedding(result):
    return getattr(result, "last_hidden_state", result)


def kept_windows(scores, count):
    """(B, h, w) bool of the scores (B, h, w): the windows with the highest mean, equal ones by the lowest index."""
    marks = torch.zeros(scores.shape, dtype=torch.bool)
    cuts = [
        (slice(y, y + WINDOW), slice(x, x + WINDOW)) for y in range(0, SIZE, WINDOW) for x in range(0, SIZE, WINDOW)
    ]
    for image, mark in zip(scores, marks, strict=True):
        means = [float(image[cut].mean()) for cut in cuts]
        for n in sorted(range(len(cuts)), key=lambda n: (-means[n], n))[:count]:
            mark[cuts[n]] = True
    return marks


def masked(encoder, x, kept, at):
    """Tokens (B, h, w, C) after each layer. All are computed, densely: those that are not kept are hidden from the
    others by a mask, and then get the value back that they had before layer ``at``."""
    found, base = [], None
    for n, layer in enumerate(parts(encoder)[1]):
        base = x if n == at else base
        if n < at or layer.window_size:
            y = layer(x)
        else:
            norm1, norm2 = (
                getattr(layer, k, None) or getattr(layer, k.replace("layer_", ""))
                for k in ("layer_norm1", "layer_norm2")
            )
            y = x + dense_attention(layer.attn, norm1(x), kept)
            y = y + layer.mlp(norm2(y))
        x = y if n < at else y.where(kept[..., None], base)
        found.append(x)
    return found


def dense_attention(attention, x, kept):
    batch, height, width, channels = x.shape
    heads = getattr(attention, "num_attention_heads", None) or attention.num_heads
    q, k, v = attention.qkv(x).view(batch, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    y, x = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    logits = attention.scale * q @ k.transpose(2, 3)
    for place, size, table in ((y, height, attention.rel_pos_h), (x, width, attention.rel_pos_w)):
        logits = logits + torch.einsum("bhqd,qkd->bhqk", q, table[place[:, None] - place + size - 1])
    logits = logits.masked_fill(~kept.view(batch, 1, 1, -1), -torch.inf)
    return attention.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, height, width, channels))

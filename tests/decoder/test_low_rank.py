"""The two-way transformer whose image tokens are never written, against the host in float64 and the direct kernels."""

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hosts import embedding, no_grad, randomise  # noqa: E402, F401

from fastprompt.ops.decoder import low_rank as _torch_low_rank  # noqa: E402
from fastprompt.ops.decoder import two_way as _torch_two_way  # noqa: E402
from fastprompt.ops.decoder.head import MaskHeadWeights  # noqa: E402


def decoder(depth, channels=64, heads=2):
    from transformers.models.sam.modeling_sam import SamMaskDecoder

    config = transformers.SamMaskDecoderConfig(
        hidden_size=channels,
        num_attention_heads=heads,
        num_hidden_layers=depth,
        mlp_dim=48,
    )
    config._attn_implementation = "eager"
    module = SamMaskDecoder(config).eval()
    randomise(module)
    return module


# depth, channels, heads, prompt tokens, images, prompts for each, height, width
CASES = [
    pytest.param(*case, id="{}-layers-C{}-{}-heads-T{}-{}x{}-prompts-{}x{}".format(*case))
    for case in [
        (2, 256, 8, 7, 1, 1, 16, 16),
        (2, 64, 2, 7, 1, 3, 9, 7),  # a last tile that is not full, for every instruction set
        (2, 64, 2, 1, 2, 2, 8, 8),
        (2, 128, 4, 19, 1, 1, 5, 13),
        (1, 64, 2, 5, 1, 2, 8, 9),
        (3, 64, 2, 6, 2, 1, 9, 8),
        (4, 64, 2, 3, 1, 1, 1, 1),
    ]
]


def run(module, tokens, image, position):
    """(prompt tokens, upscaled image tokens) of the operators, and of the host in float64."""
    w, up = _torch_two_way.TwoWayWeights(module.transformer), module.upscale_conv1.weight
    weights = MaskHeadWeights(
        up, module.upscale_conv1.bias, module.upscale_layer_norm.weight, module.upscale_layer_norm.bias,
        module.upscale_conv2.weight, module.upscale_conv2.bias,
    )  # fmt: skip
    vectors = torch.randn(len(tokens), 3, weights.conv2_bias.numel(), generator=torch.Generator().manual_seed(2))
    images, _, height, width = image.shape
    prepared = _torch_low_rank.prepare(image, position, w, up)
    got, state = _torch_low_rank.two_way(tokens, prepared, (images, height, width), w, up)
    masks = _torch_low_rank.masks(state, vectors, weights, 1e-6, None)
    direct = _torch_two_way.two_way(tokens, _torch_two_way.prepare(image, position, w), images, height * width, w)
    direct = direct[0], fp.mask_head(direct[1].unflatten(2, (height, width)), vectors, weights, eps=1e-6)
    return (got, masks), direct, exact(module, tokens, image, position, vectors, weights)


def exact(module, tokens, image, position, vectors, weights):
    module = module.double()
    prompts = len(tokens) // len(image)
    image, position = image.double().repeat_interleave(prompts, 0), position.double()
    want, keys = module.transformer(tokens[:, None].double(), image, position.expand_as(image), None)
    keys = keys.squeeze(1).transpose(1, 2).reshape(image.shape)
    with fp.backend("reference"):
        masks = torch.einsum("bmd,bdyx->bmyx", vectors.double(), upscale(module, keys))
    module.float()
    return want.squeeze(1), masks


def upscale(module, x):
    x = module.activation(module.upscale_layer_norm(module.upscale_conv1(x)))
    return module.activation(module.upscale_conv2(x))


@pytest.mark.parametrize(("depth", "channels", "heads", "count", "images", "prompts", "height", "width"), CASES)
@pytest.mark.parametrize("threads", [1, 3])
def test_equals_the_host(isa, threads, depth, channels, heads, count, images, prompts, height, width):
    module, g = decoder(depth, channels, heads), torch.Generator().manual_seed(0)
    tokens = torch.randn(images * prompts, count, channels, generator=g)
    image = torch.randn(images, channels, height, width, generator=g)
    position = torch.randn(1, channels, height, width, generator=g)
    fp.set_num_threads(threads)
    try:
        got, direct, want = run(module, tokens, image, position)
    finally:
        fp.set_num_threads(None)
    for x, y, z in zip(got, direct, want, strict=True):
        scale = float(z.abs().max())
        assert float((x - z).abs().max()) <= 4e-6 * scale
        assert float((y - z).abs().max()) <= 4e-6 * scale


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_prompts_that_say_next_to_nothing_or_drown_the_image(scale):
    """The LayerNorm's square is put together from parts: none of them may swallow the others."""
    module, g = decoder(2), torch.Generator().manual_seed(0)
    for layer in module.transformer.layers:
        layer.cross_attn_image_to_token.out_proj.weight.mul_(scale)
    tokens, image = torch.randn(2, 7, 64, generator=g), torch.randn(1, 64, 8, 8, generator=g)
    got, direct, want = run(module, tokens, image, torch.randn(1, 64, 8, 8, generator=g))
    for x, y, z in zip(got, direct, want, strict=True):
        error = float((y - z).abs().max())
        assert error <= 1e-4 * float(z.abs().max())
        assert float((x - z).abs().max()) <= max(4 * error, 4e-6 * float(z.abs().max()))


def test_threads_give_the_same_bits_again():
    module, g = decoder(2), torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 7, 64, generator=g), torch.randn(1, 64, 16, 16, generator=g), torch.randn(1, 64, 16, 16)
    fp.set_num_threads(2)
    try:
        first, again = run(module, *inputs)[0], run(module, *inputs)[0]
    finally:
        fp.set_num_threads(None)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))


def test_opcheck():
    module = decoder(2)
    w, up = _torch_two_way.TwoWayWeights(module.transformer), module.upscale_conv1.weight.detach()
    sizes, weights = list(_torch_low_rank.sizes_of(w, up)), [x.detach() for x in w.all]
    image, position, prompt = torch.randn(1, 64, 8, 8), torch.randn(1, 64, 8, 8), torch.randn(3, 7, 64)
    shapes = ("test_schema", "test_faketensor")  # the numbers behind the last tile are not written
    namespace = torch.ops.fastprompt
    torch.library.opcheck(
        namespace.low_rank_prepare.default, (image, position, weights, up, sizes, w.eps), test_utils=shapes
    )
    prepared = _torch_low_rank.prepare(image, position, w, up)
    arguments = (prompt, prepared, weights, up, 1, 64, w.mlp, sizes, w.eps)
    torch.library.opcheck(namespace.low_rank.default, arguments, test_utils=shapes)
    _, state = _torch_low_rank.two_way(prompt, prepared, (1, 8, 8), w, up)
    head = [up, *(x.detach() for x in (module.upscale_conv1.bias, module.upscale_layer_norm.weight))]
    head += [
        x.detach() for x in (module.upscale_layer_norm.bias, module.upscale_conv2.weight, module.upscale_conv2.bias)
    ]
    vectors = torch.randn(3, 2, head[-1].numel())
    arguments = (state.values, prepared, vectors, head, None, None, [1, 7, 8, 8], sizes, 1e-6)
    torch.library.opcheck(namespace.low_rank_masks.default, arguments)
    empty, state = _torch_low_rank.two_way(prompt[:0], prepared, (1, 8, 8), w, up)
    assert empty.shape == (0, 7, 64)
    assert _torch_low_rank.masks(state, vectors[:0], MaskHeadWeights(*head), 1e-6, None).shape == (0, 2, 32, 32)

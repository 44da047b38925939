"""``accelerate``: the cache of an image, the model that remains a model, and the host's path."""

import copy
import io
import pickle
import warnings

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hosts import PROMPTS, embedding, fast, model, no_grad, randomise, sam, same  # noqa: E402, F401

# ---------------------------------------------------------------- the cache of an image


def test_an_image_that_changes_is_not_taken_for_the_old_one(fast):
    image = embedding()
    ask = lambda: fast(image_embeddings=image, **PROMPTS["point"]).pred_masks  # noqa: E731
    first = ask()
    image.mul_(0.5)  # in place: the version counts
    with fp.disabled():
        want = ask()
    assert not torch.equal(first, want)
    same(ask(), want)
    fast.mask_decoder.transformer.layers[0].cross_attn_token_to_image.k_proj.weight.mul_(1.1)  # so does a weight's
    with fp.disabled():
        want = ask()
    same(ask(), want)
    fast.prompt_encoder.no_mask_embed.weight.add_(0.1)
    with fp.disabled():
        want = ask()
    same(ask(), want)
    randomise(fast.mask_decoder)


def test_inference_mode(fast):
    with torch.inference_mode():
        image = embedding() * 1
        with fp.disabled():
            want = fast(image_embeddings=image, **PROMPTS["point"]).pred_masks
        for _ in range(2):
            same(fast(image_embeddings=image, **PROMPTS["point"]).pred_masks, want)
        image.mul_(0.5)
        with fp.disabled():
            want = fast(image_embeddings=image, **PROMPTS["point"]).pred_masks
        same(fast(image_embeddings=image, **PROMPTS["point"]).pred_masks, want)


def test_the_cache_is_dropped_with_the_image(fast):
    image = embedding()
    fast(image_embeddings=image, **PROMPTS["point"])
    cache = fast.mask_decoder.__dict__["_fastprompt_low_rank"]
    assert cache._kept is not None
    del image
    assert cache._kept is None


@pytest.mark.parametrize("inference", [True, False])
def test_a_view_of_a_known_image_is_known(fast, inference):
    with torch.inference_mode() if inference else torch.no_grad():
        images = torch.cat([embedding(seed=1), embedding(seed=2)])
        ask = lambda image: fast(image_embeddings=image[None], **PROMPTS["point"]).pred_masks  # noqa: E731
        first = ask(images[0])
        prepared = fast.mask_decoder.__dict__["_fastprompt_low_rank"]._kept.result
        assert torch.equal(ask(images[0]), first)
        assert fast.mask_decoder.__dict__["_fastprompt_low_rank"]._kept.result is prepared
        for factor in (1.0, 0.5):  # another part of the memory; and it changes
            images[1].mul_(factor)
            with fp.disabled():
                want = ask(images[1])
            same(ask(images[1]), want)
    del images
    assert fast.mask_decoder.__dict__["_fastprompt_low_rank"]._kept is None


def test_a_mask_prompt_is_not_cached(fast):
    image = embedding()
    fast(image_embeddings=image, **PROMPTS["mask"])
    kept = {name for name in fast.mask_decoder.__dict__ if name.startswith("_fastprompt")}
    assert kept == {"_fastprompt_look"}


# ---------------------------------------------------------------- the model remains a model


def test_accelerate_is_idempotent_and_reversible(model):
    host, keys = type(model.mask_decoder), list(model.state_dict())
    assert "not accelerated" in fp.report(model).skipped["mask_decoder"]
    assert fp.accelerate(model) is model
    fast = type(model.mask_decoder)
    assert fast is not host
    assert issubclass(fast, host)
    assert type(fp.accelerate(model).mask_decoder) is fast
    module = "transformers.models.sam.modeling_sam"
    assert fp.report(model).replaced == {
        "": f"{module}.SamModel",
        "mask_decoder": f"{module}.SamMaskDecoder",
        "prompt_encoder.shared_embedding": f"{module}.SamPositionalEmbedding",
        "shared_image_embedding": f"{module}.SamPositionalEmbedding",
        "vision_encoder.layers.0": f"{module}.SamVisionLayer",
        "vision_encoder.layers.0.attn": f"{module}.SamVisionSdpaAttention",
    }
    assert list(model.state_dict()) == keys
    model(image_embeddings=embedding(), **PROMPTS["point"])
    assert list(model.state_dict()) == keys
    assert type(fp.restore(model).mask_decoder) is host
    assert not [name for name in model.mask_decoder.__dict__ if name.startswith("_fastprompt")]


def test_save_load_copy_and_pickle(fast, tmp_path):
    arguments = {"image_embeddings": embedding(), **PROMPTS["point"]}
    want = fast(**arguments).pred_masks
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(other.mask_decoder) is type(fast.mask_decoder)
        assert torch.equal(other(**arguments).pred_masks, want)
    fast.save_pretrained(tmp_path)
    loaded = transformers.SamModel.from_pretrained(tmp_path).eval()
    same(fp.accelerate(loaded)(**arguments).pred_masks, want)
    buffer = io.BytesIO()
    torch.save(fast.state_dict(), buffer)
    plain = sam()
    plain.load_state_dict(torch.load(io.BytesIO(buffer.getvalue())))
    same(plain(**arguments).pred_masks, want)


def test_hooks_run(fast):
    seen = []
    handle = fast.mask_decoder.register_forward_hook(lambda module, inputs, output: seen.append(output[0].shape))
    fast(image_embeddings=embedding(), **PROMPTS["point"])
    handle.remove()
    assert seen == [(1, 1, 3, 256, 256)]


@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_compile(fast):
    arguments = {"image_embeddings": embedding(), **PROMPTS["point"]}
    want = fast(**arguments).pred_masks
    compiled = torch.compile(fast.mask_decoder, backend="aot_eager", fullgraph=True)
    sparse, dense = fast.prompt_encoder(arguments["input_points"], torch.ones(1, 1, 1, dtype=torch.int), None, None)
    position = fast.get_image_wide_positional_embeddings()
    same(compiled(arguments["image_embeddings"], position, sparse, dense, True)[0], want)


def test_opcheck():
    from fastprompt.ops.decoder.two_way import TwoWayWeights, prepare, two_way

    w = TwoWayWeights(sam(size=4).mask_decoder.transformer)
    image, prompt = embedding(size=4), torch.randn(3, 7, 256)
    prepared = prepare(image, embedding(size=4, seed=1), w)
    sizes = (1, 16, w.heads, w.width, w.mlp, w.depth, w.eps)
    weights, first = ([x.detach() for x in xs] for xs in (w.all, w.prepare))
    namespace = torch.ops.fastprompt
    torch.library.opcheck(namespace.two_way.default, (prompt, prepared, weights, *sizes))
    # The numbers behind the last tile are not written, so only shapes can be compared.
    torch.library.opcheck(
        namespace.two_way_prepare.default, (image, image, first), test_utils=("test_schema", "test_faketensor")
    )
    assert [x.shape for x in two_way(prompt[:0], prepared, 1, 16, w)] == [(0, 7, 256), (0, 256, 16)]


# ---------------------------------------------------------------- the host's path


def test_the_reference_backend_is_the_host(fast):
    arguments = {"image_embeddings": embedding(), **PROMPTS["point"]}
    with fp.disabled():
        want = fast(**arguments).pred_masks
    with fp.backend("reference"):
        assert torch.equal(fast(**arguments).pred_masks, want)


def fallback(fast, match, **arguments):
    from fastprompt.nn.parts import host_path

    host_path._said.clear()
    with pytest.warns(UserWarning, match=match):
        got = fast(**arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast(**arguments)  # said once
    with fp.disabled():
        want = fast(**arguments)
    same(got.pred_masks, want.pred_masks)


def test_calls_that_are_not_covered(fast):
    arguments = {"image_embeddings": embedding(), **PROMPTS["point"]}
    fallback(fast, "target_embedding is given", target_embedding=torch.zeros(1, 1, 1, 256), **arguments)
    similarity = torch.zeros(1, 1, 1, 4096)
    fallback(fast, "attention_similarity is given", attention_similarity=similarity, **arguments)


def test_gradients_take_the_host(fast):
    arguments = {"image_embeddings": embedding().requires_grad_(), **PROMPTS["point"]}
    with torch.enable_grad():
        fallback(fast, "gradients are enabled", **arguments)
        fast(**arguments).pred_masks.sum().backward()
    assert arguments["image_embeddings"].grad.abs().sum() > 0
    fast.zero_grad()


def test_other_dtypes_take_the_host(model):
    double = fp.accelerate(copy.deepcopy(model)).double()
    fallback(double, "no kernel for this dtype", image_embeddings=embedding().double(), **PROMPTS["point"])


def test_what_cannot_be_replaced_is_reported(model):
    other = copy.deepcopy(model)
    other.mask_decoder.transformer.layers[0].mlp.act = torch.nn.GELU()
    host = type(other.mask_decoder)
    assert type(fp.accelerate(other).mask_decoder) is host
    assert "activation must be ReLU" in fp.report(other).skipped["mask_decoder"]
    other = copy.deepcopy(model)
    other.mask_decoder.transformer.layers[1].self_attn.q_proj.__class__ = type("LoraLinear", (torch.nn.Linear,), {})
    assert "self_attn.q_proj is a " in fp.report(fp.accelerate(other)).skipped["mask_decoder"]
    assert "nothing to replace" in str(fp.report(fp.accelerate(torch.nn.Linear(2, 2))))
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        fp.accelerate(3)

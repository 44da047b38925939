"""Half precision and autocast: the drop-ins compute in float32, so they are nearer to the float32 host than the host."""

import copy
import gc
import pickle

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from decoders import BUILDERS, host  # noqa: E402
from hosts import PROMPTS, embedding, model, no_grad, same  # noqa: E402, F401

CASES = [("bfloat16", "point"), ("bfloat16", "mask"), ("float16", "point")]


def to(x, dtype):
    """Tensors of floats in a dtype, expanded as they were: the decoders see by that whether there is a mask prompt."""
    if isinstance(x, list):
        return [to(y, dtype) for y in x]
    if not torch.is_tensor(x) or not x.is_floating_point():
        return x
    return x[..., :1, :1].to(dtype).expand_as(x) if x.stride()[-2:] == (0, 0) else x.to(dtype)


def nearer(decoder, arguments, exact):
    """``decoder`` against its host, called the same way: dtypes are the host's, errors at most the host's."""
    theirs = fp.restore(decoder)(**arguments)
    ours = fp.accelerate(decoder)(**arguments)
    for x, y, z in zip(ours, theirs, exact, strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert float((x.float() - z).abs().max()) <= max(float((y.float() - z).abs().max()), 1e-5)
    again = decoder(**arguments)
    assert all(torch.equal(x, y) for x, y in zip(again, ours, strict=True))


@pytest.mark.parametrize(("dtype", "kind"), CASES)
@pytest.mark.parametrize("name", BUILDERS)
def test_parameters_in_half_precision(name, dtype, kind):
    dtype = getattr(torch, dtype)
    half = copy.deepcopy(fp.restore(host(name).decoder)).to(dtype)
    arguments = {k: to(v, dtype) for k, v in host(name).arguments(kind, 3).items()}
    exact = copy.deepcopy(half).float()(**{k: to(v, torch.float32) for k, v in arguments.items()})
    nearer(half, arguments, exact)


@pytest.mark.parametrize(("dtype", "kind"), CASES)
@pytest.mark.parametrize("name", BUILDERS)
def test_autocast(name, dtype, kind):
    decoder, arguments = host(name).decoder, host(name).arguments(kind, 3)
    exact = fp.restore(decoder)(**arguments)
    with torch.autocast("cpu", getattr(torch, dtype)):
        nearer(decoder, arguments, exact)


# ---------------------------------------------------------------- the copies


@pytest.fixture
def half(model):
    return fp.accelerate(copy.deepcopy(fp.restore(model)).bfloat16())


def ask(model, image):
    return model(image_embeddings=image, **PROMPTS["point"]).pred_masks


def test_a_model_in_half_precision(half):
    """Around the decoder all is the host's: its prompts in half precision, and masks of its dtype."""
    seen, image = [], embedding().bfloat16()
    handle = half.mask_decoder.register_forward_pre_hook(lambda _, a, given: seen.append(given), with_kwargs=True)
    with fp.disabled():
        want = ask(half, image)
    handle.remove()
    exact = copy.deepcopy(fp.restore(half).mask_decoder).float()
    exact = exact(**{k: to(v, torch.float32) for k, v in seen[0].items()})[0]
    got = ask(fp.accelerate(half), image)
    assert got.dtype == want.dtype == torch.bfloat16
    assert float((got - exact).abs().max()) < float((want - exact).abs().max()) / 2


def test_a_known_image_is_neither_converted_nor_prepared_again(half):
    image = embedding().bfloat16()
    first = ask(half, image)
    keeper = half.mask_decoder.__dict__["_fastprompt_float32"]
    twin = keeper._kept[2]
    prepared, converted = twin.__dict__["_fastprompt_low_rank"]._kept, keeper._inputs[0,]._kept
    assert None not in (prepared, converted)
    assert torch.equal(ask(half, image), first)
    assert keeper._inputs[0,]._kept is converted
    assert keeper._kept[2] is twin
    assert twin.__dict__["_fastprompt_low_rank"]._kept is prepared
    image.mul_(0.5)
    with fp.disabled():
        want = ask(half, image)
    assert float((ask(half, image) - want).abs().max()) < 0.2 < float((first - want).abs().max())


def test_a_parameter_that_changes(half):
    image = embedding().bfloat16()
    first = ask(half, image)
    for change in (
        lambda w: w.mul_(1.5),  # in place
        lambda w: setattr(w, "data", w.data * 1.5),  # other memory
    ):
        change(half.mask_decoder.mask_tokens.weight)
        again = ask(half, image)
        assert not torch.equal(again, first)
        assert torch.equal(again, ask(copy.deepcopy(half), image))
        first = again
    ask(half.float(), image.float())
    ask(half, image)  # this image is converted, but no copy of the parameters is needed any more
    assert half.mask_decoder.__dict__["_fastprompt_float32"]._kept is None


def test_the_copies_go_with_the_image_and_with_restore(half):
    image = embedding().bfloat16()
    keys, want = list(half.state_dict()), ask(half, image)
    keeper = half.mask_decoder.__dict__["_fastprompt_float32"]
    assert list(half.state_dict()) == keys
    assert len(pickle.dumps(half)) < 2.1 * sum(p.numel() for p in half.parameters()) + 1e6
    for other in (copy.deepcopy(half), pickle.loads(pickle.dumps(half))):
        assert other.mask_decoder.__dict__["_fastprompt_float32"]._kept is None
        assert torch.equal(ask(other, image), want)
    del image
    gc.collect()
    # The image's; the positions live as long as their module keeps them.
    assert keeper._inputs[(0,)]._kept is None
    assert not [name for name in fp.restore(half).mask_decoder.__dict__ if name.startswith("_fastprompt")]


def test_inference_mode(half):
    with torch.inference_mode():
        image = embedding().bfloat16()
        first = ask(half, image)
        assert torch.equal(ask(half, image), first)
        image.mul_(0.5)
        assert not torch.equal(ask(half, image), first)
    assert not ask(half, image).is_inference()  # the copy that was made there serves here


@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_compile_takes_the_host_in_half_precision(half):
    arguments = host("Sam").arguments()
    decoder = fp.accelerate(copy.deepcopy(fp.restore(host("Sam").decoder)))
    compiled = torch.compile(decoder, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        for x, y in zip(compiled(**arguments), decoder(**arguments), strict=True):
            assert x.dtype == y.dtype
            same(
                x.float(), y.float(), 1e-2
            )  # a unit of bfloat16: a compiled graph keeps no image, so it computes directly
    decoder.bfloat16()
    lowered = {k: to(v, torch.bfloat16) for k, v in arguments.items()}
    with fp.disabled():
        want = decoder(**lowered)
    for x, y in zip(compiled(**lowered), want, strict=True):
        same(x.float(), y.float(), 2e-2)

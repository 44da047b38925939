"""CLIPSeg of transformers: the same masks, every picture encoded once."""

import copy
import pickle

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def make():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = transformers.CLIPSegConfig(
        text_config=sizes | {"vocab_size": 100, "eos_token_id": 99},
        vision_config=sizes | {"image_size": 64, "patch_size": 16},
        projection_dim=24,
        extract_layers=[0, 1, 2],
        reduce_dim=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    torch.manual_seed(0)
    model = transformers.CLIPSegForImageSegmentation(config).eval()
    for p in model.parameters():  # its own start leaves the masks nearly flat
        p.data += 0.1 * torch.randn(p.shape)
    return model


def texts(count):
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 90, (count, 7), generator=g)
    ids[:, -1] = 99
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def picture(seed=0):
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def pair():
    model = make()
    return copy.deepcopy(model), fp.accelerate(model)


@pytest.fixture
def encoded(pair, monkeypatch):
    """How many pictures each run of an encoder has seen, by its only convolution: a hook would be the host's path."""
    seen, convolve = [], torch.nn.functional.conv2d

    def count(x, weight, *rest):
        if weight is pair[1].clip.vision_model.embeddings.patch_embedding.weight:
            seen.append(len(x))
        return convolve(x, weight, *rest)

    monkeypatch.setattr(torch.nn.functional, "conv2d", count)
    return seen


def same(got, want):
    assert got.keys() == want.keys()
    for name in want:
        a, b = got[name], want[name]
        if isinstance(b, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        elif b is not None and hasattr(b, "keys"):
            same(a, b)
        elif b is not None:
            assert len(a) == len(b)
            for x, y in zip(a, b, strict=True):
                assert (x is None) == (y is None)
                if y is not None:
                    torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


OPTIONS = [{}, {"output_hidden_states": True}, {"output_attentions": True}]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equal(pair, encoded, mode, options):
    host, ours = pair
    with mode():
        for pixels, runs in (
            (picture().repeat(4, 1, 1, 1), [1]),  # as the processor makes them
            (picture().expand(4, -1, -1, -1), []),  # the same picture again
            (torch.cat([picture(1), picture(2), picture(1), picture(3)]), [3]),
            (torch.cat([picture(1), picture(2), picture(3)]), []),
            (picture(4), [1]),
        ):
            arguments = {"pixel_values": pixels, **texts(len(pixels)), **options}
            encoded.clear()
            same(ours(**arguments), host(**arguments))
            assert encoded == runs


@torch.no_grad()
def test_what_is_kept_is_known_by_its_values(pair, encoded):
    host, ours = pair
    pixels = picture()
    first = ours(pixel_values=pixels, **texts(1))
    pixels[0, 0, 3, 3] += 1
    same(ours(pixel_values=pixels, **texts(1)), host(pixel_values=pixels, **texts(1)))
    for model in pair:
        model.clip.vision_model.post_layernorm.weight.mul_(2)
    same(ours(pixel_values=pixels, **texts(1)), host(pixel_values=pixels, **texts(1)))
    assert encoded == [1, 1, 1]
    out = ours(pixel_values=pixels, **texts(1))
    assert encoded == [1, 1, 1]
    out.vision_model_output.last_hidden_state.zero_()  # the caller's tensor shares memory with what is kept
    same(ours(pixel_values=pixels, **texts(1)), host(pixel_values=pixels, **texts(1)))
    assert not torch.equal(first.logits, out.logits)


@torch.no_grad()
def test_pictures_as_prompts_and_embeddings(pair):
    host, ours = pair
    pixels, prompts = picture().repeat(3, 1, 1, 1), torch.cat([picture(5), picture(6), picture(5)])
    arguments = {"pixel_values": pixels, "conditional_pixel_values": prompts}
    same(ours(**arguments), host(**arguments))
    arguments = {"pixel_values": pixels, "conditional_embeddings": torch.randn(3, 24)}
    same(ours(**arguments), host(**arguments))
    arguments = {"pixel_values": torch.randn(2, 3, 96, 96), **texts(2)}
    same(ours(**arguments), host(**arguments))
    with pytest.raises(ValueError, match="as many prompt texts"):
        ours(pixel_values=pixels, **texts(2))


def test_training_and_disabled(pair, encoded):
    host, ours = pair
    arguments = {"pixel_values": picture().repeat(2, 1, 1, 1), **texts(2)}
    with fp.disabled(), torch.no_grad():
        assert torch.equal(ours(**arguments).logits, host(**arguments).logits)
    grads = []
    for model in pair:  # the decoder learns; transformers never lets the encoder
        model.zero_grad()
        model(**arguments).logits.square().sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name in grads[0]:
        torch.testing.assert_close(grads[0][name], grads[1][name], rtol=1e-3, atol=1e-4)
    # The encoder by itself can learn: then it is the host's.
    encoded.clear()
    ours.clip.get_image_features(arguments["pixel_values"]).pooler_output.sum().backward()
    assert encoded == [2]


@torch.no_grad()
def test_the_module_stays_what_it_was(pair):
    host, ours = pair
    before = ours(pixel_values=picture(), **texts(1)).logits
    assert ours.state_dict().keys() == host.state_dict().keys()
    assert "CLIPSegVisionModel" in str(fp.report(ours))
    other = copy.deepcopy(ours)
    assert not other.clip.vision_model.__dict__["_fastprompt_picture"]  # what is kept is not copied
    assert torch.equal(other(pixel_values=picture(), **texts(1)).logits, before)
    other = pickle.loads(pickle.dumps(fp.accelerate(make())))  # transformers' own hooks cannot be pickled after a call
    assert torch.equal(other(pixel_values=picture(), **texts(1)).logits, before)
    fp.restore(ours)
    assert type(ours.clip.vision_model) is type(host.clip.vision_model)
    assert "_fastprompt_picture" not in ours.clip.vision_model.__dict__
    assert torch.equal(ours(pixel_values=picture(), **texts(1)).logits, host(pixel_values=picture(), **texts(1)).logits)


@torch.no_grad()
def test_tuples(pair):
    host, ours = pair
    arguments = {"pixel_values": picture().repeat(2, 1, 1, 1), **texts(2), "return_dict": False}
    for a, b in zip(ours(**arguments)[:2], host(**arguments)[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    both = [m.clip.vision_model(arguments["pixel_values"], return_dict=False) for m in (ours, host)]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)

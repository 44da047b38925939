"""One accelerated model in other people's hands: adapters and quantisers of packages, several threads, a fork."""

import os
import threading

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from test_known import close, embeddings, make, masks  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
PARTS = {"decoder": (masks, r".*mask_decoder.*(q_proj|v_proj|lin1|proj_in)")}
PARTS |= {"encoder": (embeddings, r".*vision_encoder.*(qkv|lin2)")}


def lora(model, pattern):
    peft = pytest.importorskip("peft")
    options = peft.LoraConfig(target_modules=pattern, r=4, init_lora_weights=False)
    return peft.inject_adapter_in_model(options, model).eval()


def merged(model, pattern):
    """An adapter that is written into the weights, through ``.data``, after a call."""
    call = next(call for call, place in PARTS.values() if place == pattern)
    model = lora(model, pattern)
    call(model)
    for layer in model.modules():
        if hasattr(layer, "merge"):
            layer.merge()
    return model


def int8(model, pattern):
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model


@pytest.mark.parametrize("first", [True, False], ids=["accelerate first", "changed first"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("change", [lora, merged, int8])
def test_changed_by_packages(change, part, first):
    (call, pattern), model = PARTS[part], make()
    plain = call(model)
    if first:
        call(fp.accelerate(model))
    model = change(model, pattern)
    fp.accelerate(model)
    with fp.disabled():
        want = call(model)
    assert float((want - plain).abs().max()) > 2e-4 * float(plain.abs().max())  # or the test shows nothing
    close(call(model), want)


def test_eight_threads():
    """Each with a picture of its own, in turn with one that all of them share."""
    model = fp.accelerate(make())
    points = torch.tensor([[[[50.0, 30.0]]]])
    images = [torch.randn(1, 64, 8, 8, generator=torch.Generator().manual_seed(n)) for n in range(9)]
    ask = lambda image: model(image_embeddings=image, input_points=points).pred_masks  # noqa: E731
    with torch.no_grad():
        wanted = [ask(image) for image in images]
    wrong = []

    def work(n):
        with torch.no_grad():
            for _ in range(20):
                for k in (n, 8):
                    if not torch.equal(ask(images[k]), wanted[k]):
                        wrong.append((n, k))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_fork():
    model, threads = fp.accelerate(make()), torch.get_num_threads()
    torch.set_num_threads(1)  # torch's own threads do not outlive a fork
    want = masks(model)
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(masks(model), want) else 1)
    torch.set_num_threads(threads)
    assert os.waitpid(child, 0)[1] == 0

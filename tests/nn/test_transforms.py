"""What torch records or transforms is the host's path; what it compiles, counts and exports follows the switches."""

import copy

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from decoders import host  # noqa: E402
from hosts import PROMPTS, embedding, fast, model, no_grad, randomised, sam  # noqa: E402, F401
from test_encoder_hosts import HOSTS  # noqa: E402
from test_relative_position_hosts import first  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from fastprompt.nn.parts.transforms import transformed  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:fastprompt.*takes the host's path"),
    pytest.mark.filterwarnings("ignore:.*torch.jit"),  # deprecated
    pytest.mark.filterwarnings("ignore:There is a performance drop"),  # of attention under vmap
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Marked(torch.Tensor):
    """Which changes nothing."""


def test_reasons():
    x, found = torch.ones(2), []
    record = lambda y: (found.append(transformed(y)), y)[1]  # noqa: E731
    assert transformed() is transformed(x, None, torch.nn.Parameter(x), x.as_subclass(Marked)) is None
    torch.func.vmap(record)(x)
    torch.func.jvp(record, (x,), (x,))
    torch.jit.trace(record, (x,), check_trace=False)
    with forward_ad.dual_level():
        record(x)
    with FakeTensorMode() as mode:
        record(x)
    record(mode.from_tensor(x))
    for reason, said in zip(found, ("func", "func", "trace", "forward-mode", "Mode", "FakeT"), strict=True):
        assert said in reason
    assert transformed(x) is None
    seen = []
    torch.compile(lambda y: (y + 1, seen.append(transformed(y)))[0], backend="eager")(x)
    assert seen == [None]


@torch.no_grad()
def ways(ask, x):
    """What torch makes of a function: a tangent in two ways, one call of many, a trace, and its work."""
    with sdpa_kernel(SDPBackend.MATH):  # the others have no forward mode
        yield torch.func.jvp(ask, (x,), (torch.cos(x),))
        with forward_ad.dual_level():
            yield tuple(forward_ad.unpack_dual(ask(forward_ad.make_dual(x, torch.cos(x)))))
        yield (torch.func.vmap(ask)(torch.stack([x, x.flip(-1)])),)
    with torch.jit.optimized_execution(False):
        traced = torch.jit.trace(ask, (x,), check_trace=False)
        yield traced(x), traced(x.flip(-1))
    with FlopCounterMode(display=False) as counter:
        ask(x)
    yield (torch.tensor(counter.get_total_flops()),)


@pytest.mark.parametrize("name", ["Sam", "SamHQ", "sam2 features"])
def test_decoders(name):
    decoder, arguments = copy.deepcopy(fp.restore(host(name).decoder)).requires_grad_(False), host(name).arguments()
    arguments = {key: x.detach() if isinstance(x, torch.Tensor) else x for key, x in arguments.items()}
    image = arguments.pop("image_embeddings")
    ask = lambda x: decoder(image_embeddings=x, **arguments)[0]  # noqa: E731
    wanted = list(ways(ask, image))
    fp.accelerate(decoder)
    ask(image)  # which is known from now on
    for got, want in zip(ways(ask, image), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["Sam", "SamHQ, windows", "segment_anything, windows", "SegGpt"])
def test_encoder_layers(name):
    layer = HOSTS[name]().requires_grad_(False)
    x = torch.randn(2, 10, 10, 64, generator=torch.Generator().manual_seed(0))
    ask = lambda y: first(layer(y))  # noqa: E731
    wanted = list(ways(ask, x))
    fp.accelerate(layer)
    for got, want in zip(ways(ask, x), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_whole_model_under_vmap(fast):
    fast = copy.deepcopy(fast).requires_grad_(False)
    images = torch.cat([embedding(seed=1), embedding(seed=2)])
    ask = torch.func.vmap(lambda x: fast(image_embeddings=x[None], **PROMPTS["point"]).pred_masks)
    with fp.disabled():
        want = ask(images)
    assert torch.equal(ask(images), want)
    compiled = torch.compile(ask, backend="eager")
    torch.testing.assert_close(compiled(images), want, rtol=0, atol=0)


def test_positions_are_not_baked_into_a_trace():
    positions = fp.accelerate(sam(size=8)).shared_image_embedding
    grid = torch.rand(8, 8, 2)
    positions(grid)
    assert "aten::sin" in str(torch.jit.trace(positions, (grid,), check_trace=False).inlined_graph)

"""Memory attention that is not what its drop-in was written for, and calls that it does not cover: the host's numbers."""

import copy
import warnings

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from memory_hosts import HOSTS, inputs, of, run, sam2_host, transformers_host  # noqa: E402


@pytest.fixture(params=HOSTS)
def name(request):
    return request.param


REFUSED = {
    "training": lambda m: m.train(),
    "a hook": lambda m: m.layers[1].linear1.register_forward_hook(lambda module, args, out: 2 * out),
    "an adapter": lambda m: m.layers[0].add_module("adapter", torch.nn.Linear(256, 256)),
    "GELU": lambda m: setattr(m.layers[1], "activation", torch.nn.GELU()),
    "a weight of a subclass": lambda m: m.layers[0].linear2.register_parameter("weight", Weight(m.layers[0].linear2)),
    "a layer of another kind": lambda m: m.layers.__setitem__(0, Layer(m.layers[0])),
    "another norm": lambda m: setattr(m.layers[0], "layer_norm3", torch.nn.Identity()),
}


class Weight(torch.nn.Parameter):
    def __new__(cls, linear):
        return torch.Tensor._make_subclass(cls, 2 * linear.weight.data, False)


class Layer(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, queries, **given):
        return self.layer(queries=2 * queries, **given)


@pytest.mark.parametrize("change", REFUSED)
def test_what_takes_the_host_s_path(change):
    host, given = transformers_host("Sam2Video"), inputs()
    module = fp.accelerate(copy.deepcopy(host))
    run(module, given)
    for changed in (module, host):
        REFUSED[change](changed)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for m in (module, host):
            torch.manual_seed(0)
            found.append(run(m, given))
    torch.testing.assert_close(*found, rtol=0, atol=0)
    if change != "training":
        assert fp.report(module).skipped


@pytest.mark.filterwarnings("ignore:fastprompt")
def test_switches_of_sam2():
    for options in ({"pos_enc_at_attn": True}, {"pos_enc_at_cross_attn_keys": False}, {"activation": "gelu"}):
        host, given = sam2_host(**options), inputs()
        assert torch.equal(run(fp.accelerate(copy.deepcopy(host)), given), run(host, given))


@pytest.mark.filterwarnings("ignore:fastprompt")
def test_gradients_are_the_host_s(name):
    host, given = HOSTS[name](), of(name)
    module, found = fp.accelerate(copy.deepcopy(host)), []
    for m in (module, host):
        features = given[0].clone().requires_grad_()
        further = [given[5]] if name == "EdgeTamVideo" else []
        m(features, given[1], given[2], given[3], given[4], *further).square().sum().backward()
        found.append(features.grad)
    assert torch.equal(*found)


@pytest.mark.filterwarnings("ignore:fastprompt")
@pytest.mark.parametrize(
    "change", [{"pointers": 9}, {"objects": 2}, {"pointers": None}, {"positions": False}], ids=lambda c: str(c)
)
def test_what_the_host_refuses(name, change):
    """The same error, or the same numbers."""
    features, memory, positions, rest, pointers, frames = of(name)
    if change == {"objects": 2}:
        memory = memory.expand(-1, 2, -1)
    pointers = change.get("pointers", pointers)
    rest = None if "positions" in change else rest
    given, found = (features, memory, positions, rest, pointers, frames), []
    host = HOSTS[name]()
    for m in (fp.accelerate(copy.deepcopy(host)), host):
        try:
            found.append(run(m, given))
        except Exception as problem:
            found.append((type(problem), str(problem)))
    if isinstance(found[1], tuple):
        assert found[0] == found[1]
    else:
        torch.testing.assert_close(*found, rtol=1e-4, atol=2e-5)

"""What people do to a host after ``accelerate``, or before: to its linear layer ``name`` of ``parent``."""

import torch
from torch import nn
from torch.nn.utils import prune


class Lora(nn.Module):
    """As forks of SAM have it: the layer inside, and a product of low rank."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.a = layer, nn.Linear(layer.in_features, 4, bias=False)
        self.b = nn.Linear(4, layer.out_features, bias=False)

    def forward(self, x):
        return self.layer(x) + self.b(self.a(x))


class LoraLinear(nn.Linear):
    """A subclass, which has the layer's own weight."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x):
        return super().forward(x) + x.mean(-1, keepdim=True)


class Doubled(torch.Tensor):
    """A weight stored as half of itself: a subclass with data of its own, as quantised weights are."""

    @staticmethod
    def __new__(cls, half):
        return torch.Tensor._make_wrapper_subclass(cls, half.shape, dtype=half.dtype, device=half.device)

    def __init__(self, half):
        self.half_ = half

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return Doubled(args[0].half_)
        given = torch.utils._pytree.tree_map(
            lambda x: 3 * x.half_ if isinstance(x, Doubled) else x, (args, kwargs or {})
        )
        return func(*given[0], **given[1])


def replaced(make_layer):
    return lambda parent, name, _: setattr(parent, name, make_layer(getattr(parent, name)))


def on_layer(change):
    return lambda parent, name, _: change(getattr(parent, name))


def double(module, arguments, out):
    return 2 * out


def written(write):
    def change(parent, name, _):
        with torch.no_grad():
            write(getattr(parent, name).weight)

    return change


def of_numpy(w):
    w.detach().numpy()[...] *= 1.7


def quantised(parent, name, _):
    wrapped = nn.ModuleDict({name: getattr(parent, name)})
    torch.ao.quantization.quantize_dynamic(wrapped, {nn.Linear}, dtype=torch.qint8, inplace=True)
    setattr(parent, name, wrapped[name])


def normed(make_norm):
    def change(parent, name, _):
        layer = make_norm(getattr(parent, name))
        with torch.no_grad():
            for key, p in layer.named_parameters():
                if key.endswith(("_g", "_orig", "original0")):
                    p.mul_(1.7)

    return change


def class_patched(parent, name, monkeypatch):
    host = next(c for c in type(parent).__mro__ if c.__module__.startswith("transformers."))
    forward = host.forward

    def patched(self, *arguments, **options):
        out = forward(self, *arguments, **options)
        return (2 * out[0], *out[1:]) if isinstance(out, tuple) else 2 * out

    monkeypatch.setattr(host, "forward", patched)


def everywhere(parent, name, monkeypatch):
    layer = getattr(parent, name)
    handle = nn.modules.module.register_module_forward_hook(lambda m, a, out: 2 * out if m is layer else None)
    parent.removed = handle.remove  # by the test


def assigned(parent, name, _):
    layer = getattr(parent, name)
    layer.load_state_dict({k: 1.7 * v for k, v in layer.state_dict().items()}, assign=True)


def twice(forward):
    def patched(*arguments, **options):
        out = forward(*arguments, **options)
        return (2 * out[0], *out[1:]) if isinstance(out, tuple) else 2 * out

    return patched


U, P = nn.utils, nn.utils.parametrizations
CHANGES = {
    "a wrapper": replaced(Lora),
    "a subclass of Linear": replaced(LoraLinear),
    "two layers for one": replaced(lambda x: nn.Sequential(x, nn.LayerNorm(x.out_features))),
    "an activation more": replaced(lambda x: nn.Sequential(x, nn.Tanh())),
    "a weight of another class": on_layer(
        lambda x: setattr(x, "weight", nn.Parameter(Doubled(x.weight.detach() / 2), requires_grad=False))
    ),
    "dynamic quantisation": quantised,
    "a forward on the layer": on_layer(lambda x: setattr(x, "forward", lambda y, f=x.forward: 2 * f(y))),
    "a forward on its parent": lambda parent, *_: setattr(parent, "forward", twice(parent.forward)),
    "a forward on its class": class_patched,
    "a hook": on_layer(lambda x: x.register_forward_hook(double)),
    "a hook before": on_layer(lambda x: x.register_forward_pre_hook(lambda m, a: (2 * a[0],))),
    "a hook on its parent": lambda parent, *_: parent.register_forward_hook(
        lambda m, a, out: (2 * out[0], *out[1:]) if isinstance(out, tuple) else 2 * out
    ),
    "a hook of all modules": everywhere,
    "weight norm": normed(P.weight_norm),
    "weight norm, old": normed(U.weight_norm),
    "spectral norm": normed(P.spectral_norm),
    "spectral norm, old": normed(U.spectral_norm),
    "pruned weights": on_layer(lambda x: prune.random_unstructured(x, "weight", 0.5)),
    ".data": written(lambda w: w.data.mul_(1.7)),
    ".data exchanged": written(lambda w: setattr(w, "data", 1.7 * w.data)),
    "NumPy": written(of_numpy),
    "in place": written(lambda w: w.mul_(1.7)),
    "a state dict, assigned": assigned,
}  # fmt: skip

"""The decoders of ZegCLIP and CRIS by their module's name and attributes, written anew here from their formulas."""

import importlib
import sys
import types

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
nn = torch.nn


class Attention(nn.Module):
    """softmax(s q k^T) v of every head, projected, with queries first; the mean over the heads of s q k^T."""

    def __init__(self, dim, num_heads, drop=0.0):
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))
        self.attn_drop, self.proj_drop = nn.Dropout(drop), nn.Dropout(0.0)

    def forward(self, xq, xk, xv):
        parts = zip((self.q, self.k, self.v), (xq, xk, xv), strict=True)
        q, k, v = (layer(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for layer, x in parts)
        logits = self.scale * q @ k.transpose(2, 3)
        out = self.attn_drop(logits.softmax(-1)) @ v
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2))).transpose(0, 1), logits.mean(1)


class TransformerDecoderLayer(nn.Module):
    def __init__(self, dim=32, heads=2, inner=64, drop=0.0):
        super().__init__()
        self.norm1, self.norm2, self.norm3, self.self_attn_norm, self.cross_attn_norm = (
            nn.LayerNorm(dim) for _ in range(5)
        )
        self.self_attn, self.multihead_attn = (nn.MultiheadAttention(dim, heads, dropout=drop) for _ in range(2))
        self.ffn = nn.Sequential(nn.Linear(dim, inner), nn.ReLU(), nn.LayerNorm(inner), nn.Linear(inner, dim))
        self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(drop) for _ in range(3))

    def forward(self, vis, txt, vis_pos, txt_pos, pad_mask):
        x = self.norm1(vis)
        here = x + vis_pos
        vis = vis + self.dropout1(self.self_attn_norm(self.self_attn(here, here, x)[0]))
        here = self.norm2(vis) + vis_pos
        words = self.multihead_attn(here, txt + txt_pos, txt, key_padding_mask=pad_mask)[0]
        vis = vis + self.dropout2(self.cross_attn_norm(words))
        return vis + self.dropout3(self.ffn(self.norm3(vis)))


@pytest.fixture
def host(monkeypatch):
    """``host(class, module)``: the class as if that module had it; the drop-in is made for it and forgotten again."""

    def place(cls, name, drop_in):
        for n in range(1, name.count(".") + 2):
            part = ".".join(name.split(".")[:n])
            module = types.ModuleType(part)
            module.__path__ = []
            monkeypatch.setitem(sys.modules, part, module)
        made = type(cls.__name__, (cls,), {"__module__": name})
        monkeypatch.setattr(cls.forward, "__module__", name)
        setattr(sys.modules[name], cls.__name__, made)
        monkeypatch.delitem(sys.modules, f"fastprompt.nn.hosts.{drop_in}", raising=False)
        importlib.import_module(f"fastprompt.nn.hosts.{drop_in}")
        return made

    yield place
    for name in ("zegclip", "cris"):
        sys.modules.pop(f"fastprompt.nn.hosts.{name}", None)


def zegclip(host, drop=0.0, classes=6):
    cls = host(Attention, "models.decode_heads.decode_seg", "zegclip")
    torch.manual_seed(0)
    return cls(48, 4, drop).eval(), (torch.randn(2, classes, 48), *[torch.randn(2, 196, 48)] * 2)


def cris(host, drop=0.0):
    cls = host(TransformerDecoderLayer, "model.layers", "cris")
    torch.manual_seed(0)
    pad = torch.arange(9) >= torch.tensor([[9], [4]])
    arrays = torch.randn(100, 2, 32), torch.randn(9, 2, 32), torch.randn(100, 1, 32), torch.randn(9, 1, 32), pad
    return cls(drop=drop).eval(), arrays


def flat(x):
    return x if isinstance(x, tuple) else (x,)


@pytest.mark.parametrize("make", [zegclip, cris])
def test_the_same_numbers(host, make):
    model, arrays = make(host)
    wanted = flat(model(*arrays))
    before = type(model)
    fp.accelerate(model)
    assert type(model).__module__.startswith("fastprompt.nn.")
    for got, want in zip(flat(model(*arrays)), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    with fp.disabled():
        assert all(map(torch.equal, flat(model(*arrays)), wanted))
    assert before.__name__ in str(fp.report(model))
    assert type(fp.restore(model)) is before


def test_many_classes_and_other_values_are_the_hosts(host):
    model, arrays = zegclip(host, classes=9)
    for call in (arrays, (arrays[0][:, :3], arrays[1], arrays[1] + 1)):
        wanted = model(*call)
        assert all(map(torch.equal, fp.accelerate(model)(*call), wanted))
        fp.restore(model)
    few = arrays[0][:, :6], arrays[1], arrays[1]
    wanted = model(*few)
    assert not torch.equal(fp.accelerate(model)(*few)[1], wanted[1])  # in another order


@pytest.mark.parametrize("make", [zegclip, cris])
def test_gradient_and_training(host, make):
    model, arrays = make(host, drop=0.5)
    grads = []
    for ours in (False, True):
        model.zero_grad()
        if ours:
            fp.accelerate(model)
        sum(x.square().sum() for x in flat(model(*arrays))).backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    model.train()  # dropout of the weights: the host's path
    torch.manual_seed(1)
    got = flat(model(*arrays))
    with fp.disabled():
        torch.manual_seed(1)
        assert all(map(torch.equal, got, flat(model(*arrays))))


@pytest.mark.parametrize(("name", "drop_in", "cls"), [
    ("models.decode_heads.decode_seg", "zegclip", "Attention"), ("model.layers", "cris", "TransformerDecoderLayer")
])  # fmt: skip
def test_another_class_of_that_name_is_left_alone(host, name, drop_in, cls):
    made = host(type(cls, (nn.Module,), {"forward": lambda self, x: x}), name, drop_in)
    model = fp.accelerate(made())
    assert type(model) is made
    assert "another class of that name" in str(fp.report(model))


def test_other_arguments_are_another_class(host):
    for base, name, drop_in in (
        (Attention, "models.decode_heads.decode_seg", "zegclip"),
        (TransformerDecoderLayer, "model.layers", "cris"),
    ):
        changed = type(base.__name__, (base,), {"forward": lambda self, x, y: x})
        made = host(changed, name, drop_in)
        model = fp.accelerate(made(48, 4) if base is Attention else made())
        assert type(model) is made
        assert "forward takes other arguments" in str(fp.report(model))

"""SAM's two-way transformer as the GPU has it: compiled PTX executed on CPU tensors, against the formula in float64, and
the formula against the layers of transformers."""

import pytest

pytest.importorskip("triton", reason="triton is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

from fastprompt.kernels import attention  # noqa: E402
from fastprompt.kernels import decoder_two_way as two_way  # noqa: E402
from fastprompt.kernels import decoder_two_way_tokens as two_way_tokens  # noqa: E402
from ptx import Fault  # noqa: E402
from ptx.build import OnPtx  # noqa: E402

import fastprompt as fp  # noqa: E402
from fastprompt.ops.decoder import formulas  # noqa: E402
from fastprompt.ops.decoder import two_way_gpu as operator  # noqa: E402
from fastprompt.ops.decoder.operators import two_way_gpu  # noqa: E402
from fastprompt.ops.decoder.two_way import TwoWayWeights  # noqa: E402

MODULES = (attention, two_way, two_way_tokens)
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}  # of the largest value


@pytest.fixture
def launches(monkeypatch):
    """``launches(arch)`` executes PTX in the place of every kernel; the list that it returns gets their names."""

    def install(arch, precision="ieee", **options):
        names = []

        class Counted(OnPtx):
            def run(self, grid, args, constants):
                names.append(self.kernel.__name__)
                return super().run(grid, args, constants)

        for module in MODULES:
            for name in [n for n in vars(module) if n.endswith("_kernel")]:
                kernel = getattr(module, name)
                kernel = kernel.kernel if isinstance(kernel, OnPtx) else kernel
                monkeypatch.setattr(module, name, Counted(kernel, arch, **options))
        monkeypatch.setattr(attention, "input_precision", lambda x: precision)
        return names

    return install


def problem(dtype, prompts, images, pixels, tokens, channels, heads, width, mlp, depth):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    inner = heads * width
    rows = depth * (4 * channels + 8 * inner + 2 * mlp) + 4 * inner
    numbers = depth * (6 * inner + mlp + 15 * channels) + 3 * inner + 3 * channels
    shapes = [(prompts, tokens, channels), (images, pixels, channels), (pixels, channels)]
    arrays = [draw(*shape) for shape in shapes + [(images, heads, pixels, width)] * 2]
    arrays += [draw(rows, channels) * channels**-0.5]
    vectors = draw(numbers) * 0.3
    return [*(x.to(dtype) for x in arrays), vectors, heads, width, mlp, depth, [1e-6, 1e-5]]


def close(arguments, found):
    exact = [x.double() if torch.is_tensor(x) else x for x in arguments]
    for got, want in zip(found, formulas.two_way(*exact), strict=True):
        assert got.dtype == arguments[0].dtype
        assert (got.double() - want).abs().max() <= TOLERANCE[got.dtype] * want.abs().max()


F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
CASES = [  # sm, precision, dtype, prompts, images, pixels, tokens, channels, heads, width, MLP, layers
    (80, "ieee", F32, 1, 1, 64, 5, 32, 2, 16, 64, 2),
    (80, "tf32x3", F32, 3, 1, 70, 7, 64, 4, 16, 96, 2),
    (80, "ieee", BF16, 4, 2, 64, 9, 64, 2, 32, 64, 1),
    (80, "ieee", F16, 24, 1, 33, 3, 32, 2, 16, 32, 2),  # two blocks, the second not full
    (75, "ieee", F32, 2, 2, 64, 5, 32, 2, 16, 64, 2),
    (120, "ieee", BF16, 1, 1, 100, 1, 32, 2, 16, 64, 3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_way(launches, case):
    arch, precision, dtype, *sizes = case
    names, arguments = launches(arch, precision), problem(dtype, *sizes)
    close(arguments, two_way_gpu.on_gpu(*arguments))
    layer = ["tokens_kernel", "image_kernel"]
    assert names == ["self_kernel", "first_kernel", *layer * sizes[-1], "last_kernel"], "nothing else is launched"


def test_in_another_order(launches):
    """Warps in random turns: the programs of a block wait for each other where they must."""
    launches(80, order=3)
    arguments = problem(F32, 2, 1, 40, 3, 32, 2, 16, 32, 1)
    close(arguments, two_way_gpu.on_gpu(*arguments))


def plant(monkeypatch, mistake, like):
    if mistake == "nobody waits":  # all counters are there already
        run = two_way.self_kernel.run
        monkeypatch.setattr(two_way.self_kernel, "run", lambda grid, args, c: (run(grid, args, c), args[4].fill_(99)))
    elif mistake == "a split too few":
        splits, each = attention.splits_of(33, 24, 32, like.device)
        monkeypatch.setattr(attention, "splits_of", lambda *a: (splits, each - 32))
    elif mistake == "a block too long":
        blocks = two_way.blocks_of(24, 1, 3, like.device, "ieee")
        monkeypatch.setattr(two_way, "blocks_of", lambda *a: blocks._replace(each=blocks.each + 1))


@pytest.mark.parametrize("mistake", ["nobody waits", "a split too few", "a block too long", "another eps"])
def test_a_mistake_is_seen(launches, monkeypatch, mistake):
    arguments = problem(F32, 24, 1, 33, 3, 32, 2, 16, 32, 1)
    given = [*arguments[:-1], [1e-1, 1e-5]] if mistake == "another eps" else arguments
    # Programs side by side are hardly a stage apart, so that who does not wait is lucky: here they run one by one.
    launches(80, **({"batch": 256} if mistake == "nobody waits" else {"order": 3}))
    plant(monkeypatch, mistake, arguments[0])
    with pytest.raises((Fault, AssertionError)) as seen:
        close(arguments, two_way_gpu.on_gpu(*given))
    assert "deadlock" not in str(seen.value)


def test_sizes_that_are_left_to_the_formula(launches):
    for sizes in [(1, 1, 8, 65, 32, 2, 16, 32, 1), (1, 1, 8, 2, 48, 3, 16, 32, 1), (1, 1, 8, 2, 32, 2, 16, 24, 1)]:
        names, arguments = launches(80), problem(F32, *sizes)
        close(arguments, two_way_gpu.on_gpu(*arguments))
        assert not names
    with fp.backend("reference"):
        arguments = problem(F32, 1, 1, 8, 2, 32, 2, 16, 32, 1)
        close(arguments, two_way_gpu.on_gpu(*arguments))
    assert not names


@pytest.mark.parametrize("images", [1, 2])
def test_the_formula_is_that_of_the_layers(images):
    modeling = pytest.importorskip("transformers.models.sam.modeling_sam")
    from transformers import SamMaskDecoderConfig

    sizes = {"hidden_size": 128, "num_attention_heads": 4, "mlp_dim": 96, "num_hidden_layers": 3}
    config = SamMaskDecoderConfig(**sizes)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    host = modeling.SamTwoWayTransformer(config).double().eval()
    image, position = torch.randn(images, 128, 3, 5).double(), torch.randn(1, 128, 3, 5).double()
    prompt, weights = torch.randn(2 * images, 6, 128).double(), TwoWayWeights(host)
    with torch.no_grad():
        wide = [image.repeat_interleave(2, 0), position.expand(2 * images, -1, -1, -1)]
        want, want_image = host(prompt.view(images, 2, 6, 128), *wide, attention_similarity=None)[:2]
        prepared = operator.prepare(image, position, weights, torch.float64)
        model = [x.double() for x in operator.packed(weights, torch.float64)]
        got, got_image = operator.two_way(prompt, prepared, tuple(model), weights)
    torch.testing.assert_close(got, want.flatten(0, 1), rtol=0, atol=1e-6)
    torch.testing.assert_close(got_image, want_image.reshape(got_image.shape), rtol=0, atol=1e-6)

"""What stays the host's: in ``report``, and as a warning where it is all of a model."""

import warnings

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hosts import sam  # noqa: E402


class Trunk(torch.nn.Module):
    """A large part without a drop-in, and a small one."""

    def __init__(self, inner):
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.Linear(3000, 1000), torch.nn.ReLU())
        self.head = torch.nn.Linear(10, 10)
        self.inner = inner


def test_report_names_large_parts():
    model = Trunk(fp.accelerate(sam()))
    found = fp.report(model)
    assert list(found.remains) == ["trunk"]  # not the head, and nothing of SAM's decoder, nor what is small around it
    count = sum(p.numel() for p in model.parameters())
    assert found.remains["trunk"] == f"torch.nn.modules.container.Sequential, {3_001_000 / count:.0%} of the parameters"
    assert f"remains   trunk: {found.remains['trunk']}, as it was" in str(found)
    assert not fp.report(model.inner.mask_decoder).remains


def test_nothing_large_of_sam2_remains():
    vision = transformers.Sam2VisionConfig(
        backbone_config=transformers.Sam2HieraDetConfig(blocks_per_stage=[1, 1, 1, 1])
    )
    model = fp.accelerate(transformers.Sam2Model(transformers.Sam2Config(vision_config=vision)))
    assert "mask_decoder" in fp.report(model).replaced
    assert "vision_encoder.backbone.blocks.0" in fp.report(model).replaced
    assert not fp.report(model).remains


def test_what_is_named_with_a_reason_is_not_named_again():
    model = sam()
    model.mask_decoder.transformer.layers[0].mlp.act = torch.nn.GELU()
    found = fp.report(fp.accelerate(model))
    assert "mask_decoder" in found.skipped
    assert not [name for name in found.remains if name.startswith("mask_decoder")]


def test_nothing_to_replace_is_said():
    with pytest.warns(
        UserWarning, match=r"replaced nothing in .*Trunk: no module of it has a drop-in; .*is trunk\."
    ) as seen:
        fp.accelerate(Trunk(torch.nn.ReLU()))
    assert seen[0].filename == __file__  # the line that called accelerate


def test_a_refusal_is_said_with_its_reason():
    decoder = sam().mask_decoder
    decoder.transformer.layers[0].mlp.act = torch.nn.GELU()
    with pytest.warns(UserWarning, match=r"it cannot be replaced: .*ReLU.*fastprompt\.report\(model\)"):
        fp.accelerate(decoder)


def test_once_for_a_class(capsys):
    """As Python does by default: in a loop over models of a kind the warning comes once."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for make in (lambda: torch.nn.Linear(2, 2), torch.nn.ReLU) * 3:
            fp.accelerate(make())
    assert ["Linear" in str(w.message) for w in seen] == [True, False]


def test_silent_where_there_is_something_of_ours():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fp.accelerate(fp.accelerate(sam().mask_decoder))
        fp.accelerate(torch.nn.Sequential(fp.nn.DistMaps(5)))

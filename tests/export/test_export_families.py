"""Models beyond SAM as files: a click model, a prototype model with a prior mask, CLIPSeg; the geodesic of a module."""

import warnings

import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxscript", reason="needs the package onnxscript")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
pytest.importorskip("transformers", reason="needs the package transformers")

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn

import fastprompt as fp
from fastprompt.nn.dist_maps import DistMaps


def exported(model, path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter
        return fp.export.onnx(model, path, **options)


class ClickModel(nn.Module):
    """As RITM and SimpleClick: maps of the clicks and the last mask beside the picture, then a network."""

    def __init__(self, disks):
        super().__init__()
        self.maps = DistMaps(5, use_disks=disks)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(11, 1, 3, padding=1)

    def forward(self, image, mask, points):
        guidance = torch.cat([self.maps(image, points), mask], 1)
        return self.last(torch.cat([F.relu(self.first(image)), guidance], 1)).sigmoid()


@pytest.mark.parametrize("disks", [True, False])
def test_a_click_model(tmp_path, disks):
    torch.manual_seed(0)
    points = torch.tensor([[[4.0, 5.0, 0.0], [-1.0, -1.0, -1.0], [9.0, 3.0, 1.0], [-1.0, -1.0, -1.0]]])
    args = (torch.rand(1, 3, 20, 24), torch.rand(1, 1, 20, 24), points)
    other = (args[0] + 1, args[1], torch.cat([points, points + 2], 1))
    found = exported(
        ClickModel(disks).eval(), tmp_path / "click.onnx", args=args, checks=[other],
        input_names=["image", "mask", "points"],
        dynamic_shapes={"image": None, "mask": None, "points": {1: torch.export.Dim("clicks") * 2}},
    )  # fmt: skip
    assert found.nodes == {"ClickMap": 1}
    assert max(found.errors.values()) < 1e-5


class PrototypeModel(nn.Module):
    """As PFENet: the prior mask and the mean of the support's features beside those of the query; and FiLM."""

    def __init__(self):
        super().__init__()
        self.encoder, self.last = nn.Conv2d(3, 16, 3, 4, padding=1), nn.Conv2d(33, 2, 1)
        self.scale, self.shift = nn.Linear(16, 33), nn.Linear(16, 33)

    def forward(self, query, support, mask):
        q, s = F.relu(self.encoder(query)), F.relu(self.encoder(support))
        prior = fp.prior_mask(q, s, mask)
        prototype = fp.masked_average_pool(s, mask[:, None], preset="pfenet")[:, 0]
        joined = torch.cat([q, prototype[:, :, None, None].expand(-1, -1, *q.shape[2:]), prior], 1)
        joined = fp.film(joined, self.scale(prototype), self.shift(prototype))
        return self.last(joined), fp.cosine_prototype_map(q, prototype[:, None])


def test_a_prototype_model(tmp_path):
    torch.manual_seed(0)
    mask = torch.zeros(2, 24, 28)
    mask[:, 3:20, 5:17] = 1
    args = (torch.rand(2, 3, 24, 28), torch.rand(2, 3, 24, 28), mask)
    found = exported(PrototypeModel().eval(), tmp_path / "prototype.onnx", args=args)
    assert found.nodes == {"PriorSimilarity": 1, "MaskedPool": 1, "SimilarityMap": 1}
    assert max(found.errors.values()) < 1e-5


class Prior(nn.Module):
    """A large ``eps`` leaves cosines of little contrast, of which levelling twice would make other numbers."""

    def forward(self, query, support, mask):
        return fp.prior_mask(query, support, mask, eps=1e6)


def test_a_prior_mask_is_levelled_once(tmp_path):
    torch.manual_seed(0)
    args = (torch.rand(1, 16, 5, 7), torch.rand(1, 16, 5, 7), (torch.rand(1, 5, 7) > 0.4).float())
    names = {"input_names": ["query", "support", "mask"]}
    for flavor in ("inlined", "plugin"):
        path = tmp_path / f"{flavor}.onnx"
        exported(Prior(), path, args=args, flavor=flavor, **names)
        options = fp.export.onnxruntime.register(onnxruntime.SessionOptions())
        feeds = {name: x.numpy() for name, x in zip(names["input_names"], args, strict=True)}
        got = onnxruntime.InferenceSession(path, options).run(None, feeds)[0]
        assert 0.5 < got.max() < 0.99  # twice: 1
        np.testing.assert_allclose(got, fp.prior_mask(*feeds.values(), eps=1e6), rtol=0, atol=1e-5)


class ClipSeg(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels, ids):
        return self.model(pixel_values=pixels, input_ids=ids).logits


def test_clipseg(tmp_path):
    """Its drop-in shares pictures between calls: a file has the host's way, standard ONNX alone."""
    from test_clipseg import make, picture, texts

    args = (picture().repeat(2, 1, 1, 1), texts(2)["input_ids"])
    found = exported(ClipSeg(make()), tmp_path / "clipseg.onnx", args=args, checks=[(picture(1), texts(1)["input_ids"])],
                     input_names=["pixels", "ids"], dynamic_shapes={"pixels": {0: "texts"}, "ids": {0: "texts"}})  # fmt: skip
    assert found.nodes == {}
    assert max(found.errors.values()) < 1e-5


class Others(nn.Module):
    """Boxes, similarity to texts and memory."""

    def forward(self, features, texts, corners):
        memory = features.flatten(2).transpose(1, 2)[:, :, None]
        boxes = fp.box_distance_map(corners, size=(12, 14))
        return boxes, fp.text_similarity_map(features, texts), fp.memory_attention(memory, memory, memory)


def test_others(tmp_path):
    args = (torch.randn(1, 32, 5, 6), torch.randn(4, 32), torch.tensor([[[1.0, 2.0, 8.0, 9.0]]]))
    found = exported(Others(), tmp_path / "others.onnx", args=args)
    assert found.nodes == {"BoxMap": 1, "SimilarityMap": 1, "MemoryRead": 1}
    assert max(found.errors.values()) < 1e-5


class Turned(nn.Module):
    """Reads of frames of 6 tokens, and of keys that are made of the memory."""

    def forward(self, q, memory, cos, sin, weight):
        read = fp.memory_attention(
            q[:, :, None], memory[:, :, None], memory[:, :, None], rotation=(cos, sin), unrotated=2
        )
        tables, linear = (cos, sin, cos, sin), [weight, weight[:, 0]]
        projected = torch.ops.fastprompt.projected_memory_read(q, memory, memory, linear, *tables, [2, 3], 2, 0.25)
        alone = torch.ops.fastprompt.projected_memory_read(q, memory, memory, linear, *tables, [2, 3], 20, 0.25)
        return read, projected, alone


def test_turned_reads(tmp_path):
    args = (torch.randn(2, 6, 32), torch.randn(2, 20, 32), torch.rand(6, 32), torch.rand(6, 32), torch.randn(32, 32))
    found = exported(Turned(), tmp_path / "turned.onnx", args=args)
    assert found.nodes == {"TurnedMemoryRead": 1, "ProjectedMemoryRead": 2}
    assert max(found.errors.values()) < 1e-5


class Polygon(nn.Module):
    def forward(self, vertices):
        return fp.polygon_mask(vertices, size=(9, 9)).float()


def test_what_has_no_node(tmp_path):
    with pytest.raises(Exception, match="polygon_mask has no node: it is made of lists of a host"):
        exported(Polygon(), tmp_path / "x.onnx", args=(torch.rand(1, 4, 2) * 9,))


def test_an_export_may_come_first(fresh_python):
    """Before any tensor, so before operators are registered with torch."""
    code = "from fastprompt.export._nodes._translate import table; print(len(table()))"
    assert int(fresh_python(code)) > 20


def test_every_operator_is_in_the_table():
    """Each has a node, standard ONNX or a reason."""
    from fastprompt.export._nodes._record import TRANSLATIONS
    from fastprompt.export._nodes._translate import registered

    # Not exported: gradients; forms that share an image between calls, which the nodes have inside; in place; metrics;
    # what predictors do after their model.
    parts = {
        "two_way_prepare",
        "two_way",
        "two_way_gpu",
        "low_rank_prepare",
        "low_rank",
        "low_rank_masks",
        "scatter_rows_",
        "overlap_counts",
        "resize_logits",
    }
    registered()
    names = [x.partition("::")[2] for x in torch._C._dispatch_get_all_op_names() if x.startswith("fastprompt::")]
    missing = {name for name in names if not name.endswith("_backward")} - set(TRANSLATIONS) - parts
    assert not missing

"""SAM 2 for videos as four files, in every runtime that is installed: each as its module, and together over 10 frames."""

import importlib.util
import io
import types
import warnings

import pytest

pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxscript", reason="needs the package onnxscript")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
pytest.importorskip("transformers", reason="needs the package transformers")

import hosts
import onnx
import onnx.inliner
import onnxruntime
import torch
import transformers

import fastprompt as fp

SIDE, PIXELS = 10, 160  # tokens and pixels along an axis
PARTS = {
    "encoder": {"GridAttention": 5},
    "memory_attention": {"TurnedMemoryRead": 2, "ProjectedMemoryRead": 2},
    "memory_encoder": {},
    "decoder": {"MaskDecoder": 1},
}
RUNTIMES = ["ONNX Runtime", "ONNX Runtime + library", "OpenVINO, inlined", "OpenVINO + extension"]


def make():
    """Its windows reach beyond the grid in every stage that has some."""
    trunk = {"hidden_size": 16, "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [16, 32, 64, 128]}
    trunk |= {"num_attention_heads_per_stage": [1, 2, 4, 8], "global_attention_blocks": [3]}
    vision = transformers.Sam2VisionConfig(
        backbone_config=transformers.Sam2HieraDetConfig(image_size=[PIXELS] * 2, **trunk),
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[scale * SIDE] * 2 for scale in (4, 2, 1)],
    )
    prompt = transformers.Sam2VideoPromptEncoderConfig(image_size=PIXELS, patch_size=16)
    memory = {"memory_attention_num_layers": 2, "memory_attention_rope_feat_sizes": [SIDE, SIDE]}
    config = transformers.Sam2VideoConfig(
        vision_config=vision, prompt_encoder_config=prompt, image_size=PIXELS, **memory
    )
    torch.manual_seed(0)
    return hosts.randomised(transformers.Sam2VideoModel(config))


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The path of each part."""
    folder, paths = tmp_path_factory.mktemp("sam2_video"), {}
    for part, nodes in PARTS.items():
        paths[part] = folder / f"{part}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's exporter
            found = fp.export.onnx(model, paths[part], part=part)
        assert found.nodes == nodes
        assert max(found.errors.values()) < 1e-5
    return paths


def onnx_runtime(path, registered):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if registered:
        fp.export.onnxruntime.register(options)
    session = onnxruntime.InferenceSession(path, options)
    names = [x.name for x in session.get_inputs()]
    return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def openvino(path, extended):
    ov = pytest.importorskip("openvino", reason="needs the package openvino")
    core, proto = ov.Core(), onnx.load(path)
    if extended:
        from test_export_matrix import openvino_extension

        for extension in openvino_extension("c++"):
            core.add_extension(extension)
    else:
        proto = onnx.inliner.inline_local_functions(proto)
    compiled = core.compile_model(
        core.read_model(io.BytesIO(proto.SerializeToString())), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def run(arrays):
        found = compiled(arrays)
        return [found[n].copy() for n in range(len(found))]

    return run


@pytest.fixture(scope="module", params=RUNTIMES)
def sessions(files, request):
    """By part: a function of tensors."""
    name = request.param
    if "OpenVINO" in name and not importlib.util.find_spec("openvino"):
        pytest.skip("needs the package openvino")
    opened = onnx_runtime if "ONNX" in name else openvino
    made = {part: opened(path, "+" in name) for part, path in files.items()}

    def call(part, *tensors):
        return [torch.from_numpy(x) for x in made[part]([x.float().contiguous().numpy() if x.is_floating_point() else x.numpy() for x in tensors])]  # fmt: skip

    return call


# ---------------------------------------------------------------- each


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def flat(image, objects=1):
    """(B, C, h, w) as the memory's layers have it."""
    return image.flatten(2).permute(2, 0, 1).expand(-1, objects, -1)


@torch.no_grad()
def test_the_encoder(model, sessions):
    pixels = draw(1, 3, PIXELS, PIXELS)
    want = model.get_image_features(pixels, return_dict=True).fpn_hidden_states
    image, finest, finer = sessions("encoder", pixels)
    for got, level in zip((finest, finer, image), want, strict=True):
        hosts.same(flat(got), level, 1e-5 * float(level.std()))


@pytest.mark.parametrize(("frames", "pointers", "objects"), [(1, 4, 1), (3, 0, 2), (7, 64, 3)])
@torch.no_grad()
def test_memory_attention(model, sessions, frames, pointers, objects):
    image, count = draw(1, 256, SIDE, SIDE), frames * SIDE**2
    memory, positions = (draw(count + pointers, objects, 64, seed=n) for n in (1, 2))
    place = model.vision_encoder.neck.position_encoding(image.shape, image.device, image.dtype)
    want = model.memory_attention(flat(image, objects), memory, flat(place, objects), positions, pointers)
    (got,) = sessions("memory_attention", image, memory[:count], positions[:count], memory[count:], positions[count:])
    hosts.same(got.flatten(2).transpose(1, 2), want[0], 1e-5 * float(want.std()))


@torch.no_grad()
def test_the_memory_encoder(model, sessions):
    image, masks = draw(1, 256, SIDE, SIDE), draw(3, 1, PIXELS, PIXELS, seed=1)
    memory, positions = model.memory_encoder(image.expand(3, -1, -1, -1), masks)
    got = sessions("memory_encoder", image, masks)
    hosts.same(got[0], memory, 1e-5 * float(memory.std()))
    hosts.same(got[1], positions.expand(memory.shape), 1e-5)


@torch.no_grad()
def test_the_decoder(model, sessions):
    """Of three objects, one of which has no click."""
    image, finest, finer = draw(3, 256, SIDE, SIDE), draw(1, 32, 4 * SIDE, 4 * SIDE), draw(1, 64, 2 * SIDE, 2 * SIDE)
    at, labels = PIXELS * torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([1, -1])
    labels = torch.stack([labels, labels, torch.tensor([-1, -1])])
    got = sessions("decoder", image, finest, finer, at, labels)
    for k in range(3):
        given = {"input_points": at[k, None, None, :1], "input_labels": labels[k, None, None, :1]}
        want = model._single_frame_forward(image_embeddings=[finest, finer, image[k : k + 1]], **given)
        best = int(got[1][k].argmax())
        scores, there = want.iou_scores[0, 0], want.object_score_logits[0, 0]
        hosts.same(got[1][k], scores, 1e-5)
        hosts.same(got[2][k], there, 1e-5 * max(1.0, float(there.abs())))
        hosts.same(got[3][k, best], want.object_pointer[0, 0], 1e-5)
        if there > 0:
            hosts.same(got[0][k, best], want.pred_masks[0, 0], 1e-5 * float(want.pred_masks.std()))


# ---------------------------------------------------------------- together


def by_files(model, call, monkeypatch):
    """The host's bookkeeping around the files."""

    def features(pixels, **options):
        image, finest, finer = call("encoder", pixels)
        levels = [flat(x) for x in (finest, finer, image)]
        return types.SimpleNamespace(fpn_hidden_states=levels, fpn_position_encoding=levels)  # which the file holds

    def attention(current_vision_features, memory, current_vision_position_embeddings, memory_posision_embeddings,
                  num_object_pointer_tokens):  # fmt: skip
        image = current_vision_features.permute(1, 2, 0).unflatten(2, (SIDE, SIDE))
        count = len(memory) - num_object_pointer_tokens
        both = [
            part for x in (slice(0, count), slice(count, None)) for part in (memory[x], memory_posision_embeddings[x])
        ]
        return call("memory_attention", image, *both)[0].flatten(2).transpose(1, 2)[None]

    def decode(image_embeddings, sparse_prompt_embeddings, high_resolution_features, multimask_output, **rest):
        assert multimask_output
        points, labels = (x[:, 0] for x in sparse_prompt_embeddings)
        no_point = torch.zeros(1, 1, 2), torch.full((1, 1), -1)
        at, kinds = torch.cat([points, no_point[0]], 1), torch.cat([labels.long(), no_point[1]], 1)
        masks, scores, objects, pointers = call("decoder", image_embeddings, *high_resolution_features, at, kinds)
        return masks[:, None], scores[:, None], pointers[:, None], objects[:, None]

    monkeypatch.setattr(model, "get_image_features", features)
    monkeypatch.setattr(model.memory_attention, "forward", attention)
    monkeypatch.setattr(model.memory_encoder, "forward", lambda image, masks: call("memory_encoder", image[:1], masks))
    monkeypatch.setattr(model.mask_decoder, "forward", decode)
    points = lambda input_points, input_labels, **rest: ((input_points, input_labels), None)  # noqa: E731
    monkeypatch.setattr(model.prompt_encoder, "forward", points)
    monkeypatch.setattr(model.object_pointer_proj, "forward", lambda pointers: pointers)


def frames_of(model, objects=2, count=10):
    session = transformers.Sam2VideoInferenceSession(video_height=PIXELS, video_width=PIXELS, dtype=torch.float32)
    for n in range(objects):
        point = {"point_coords": torch.tensor([[[[60.0 + 20 * n, 70.0]]]]), "point_labels": torch.tensor([[[1]]])}
        session.add_point_inputs(session.obj_id_to_idx(n + 1), 0, point)
        session.obj_with_new_inputs.append(n + 1)
    found = [model(session, frame=frame[None]) for frame in draw(count, 3, PIXELS, PIXELS, seed=5)]
    return [x.pred_masks for x in found], [x.object_score_logits for x in found]


def test_ten_frames(model, sessions, monkeypatch):
    masks, objects = frames_of(model)
    assert (torch.cat(objects) > 0).all()  # else a mask is -1024 everywhere
    by_files(model, sessions, monkeypatch)
    got, got_objects = frames_of(model)
    for x, y in zip(got, masks, strict=True):
        assert float(y.std()) > 0.01
        hosts.same(x, y, 1e-4 * float(y.std()))
    hosts.same(torch.cat(got_objects), torch.cat(objects), 1e-4 * float(torch.cat(objects).abs().max()))


def test_what_no_file_has(model, tmp_path):
    with pytest.raises(ValueError, match="part must be 'decoder' or 'encoder' for SamModel, got 'memory_encoder'"):
        fp.export.onnx(transformers.SamModel(small()), tmp_path / "x.onnx", part="memory_encoder")
    with pytest.raises(ValueError, match="mask_prompts must be False for Sam2VideoModel"):
        fp.export.onnx(model, tmp_path / "x.onnx", mask_prompts=True)


def small():
    vision = {"image_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 64}
    return transformers.SamConfig(vision_config=transformers.SamVisionConfig(**vision))

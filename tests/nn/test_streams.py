"""Video sessions on an accelerated model: several threads give the serial bits, and what is bounded does not grow."""

import copy
import gc
import pickle
import threading

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hosts import no_grad, randomised, same  # noqa: E402, F401
from test_around import SIZE, hiera  # noqa: E402

from fastprompt.video import Frames  # noqa: E402

PIXELS = 16 * SIZE
CLICK = {"point_coords": [[[[60.0, 70.0]]]], "point_labels": [[[1]]]}


@pytest.fixture(scope="module")
def model():
    """Of 160 pixels: its memory is 100 tokens a frame."""
    prompt = transformers.Sam2VideoPromptEncoderConfig(image_size=PIXELS, patch_size=16)
    memory = {"memory_attention_num_layers": 2, "memory_attention_rope_feat_sizes": [SIZE, SIZE]}
    config = transformers.Sam2VideoConfig(
        vision_config=hiera(), prompt_encoder_config=prompt, image_size=PIXELS, **memory
    )
    torch.manual_seed(0)
    return fp.accelerate(randomised(transformers.Sam2VideoModel(config)))


def pixels(seed, count):
    return torch.randn(count, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(seed))


def session_of(video=None, objects=1, frame=0):
    size = {"video_height": PIXELS, "video_width": PIXELS, "dtype": torch.float32}
    session = transformers.Sam2VideoInferenceSession(video=video, **size)
    for n in range(objects):
        index = session.obj_id_to_idx(n + 1)
        point = {"point_coords": torch.tensor(CLICK["point_coords"]) + 20.0 * n}
        session.add_point_inputs(index, frame, point | {"point_labels": torch.tensor(CLICK["point_labels"])})
        session.obj_with_new_inputs.append(n + 1)
    return session


def streamed(model, session, frames):
    for frame in frames:
        out = model(session, frame=frame[None])
        yield torch.cat([out.pred_masks.flatten(), out.object_score_logits.flatten()])


def correct(session, index, frame):
    """Another click of the user, on the first object."""
    session.add_point_inputs(index, frame, {"point_coords": torch.tensor([[[[90.0, 30.0]]]])}
                             | {"point_labels": torch.tensor([[[0]]])})  # fmt: skip
    session.obj_with_new_inputs.append(session.obj_idx_to_id(index))


def test_frames_of_the_host(model):
    """20 frames, a correction in between; every one as the host has it."""
    frames = pixels(0, 20)

    def run():
        session = session_of(objects=2)
        first = list(streamed(model, session, frames[:12]))
        correct(session, 0, 11)
        out = model(session, frame_idx=11)
        return [*first, out.pred_masks.flatten(), *streamed(model, session, frames[12:])]

    with fp.disabled():
        want = run()
    got = run()
    assert float(torch.stack(want[:12]).std()) > 0.1
    assert not torch.equal(want[11][: len(want[12])], want[12])
    for x, y in zip(got, want, strict=True):
        same(x, y, 2e-5)


def test_sessions_of_several_threads(model):
    """2 threads, each with 2 sessions that take turns: the bits of one after the other."""

    def pair(seed, found):
        sessions = [streamed(model, session_of(), pixels(seed + n, 8)) for n in range(2)]
        for _ in range(8):
            for n, session in enumerate(sessions):
                found[seed + n].append(next(session))

    want = {n: list(streamed(model, session_of(), pixels(n, 8))) for n in range(4)}
    for _ in range(2):
        found = {n: [] for n in range(4)}
        threads = [threading.Thread(target=pair, args=(seed, found)) for seed in (0, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for n, rows in want.items():
            assert all(torch.equal(x, y) for x, y in zip(found[n], rows, strict=True))


def kept_bytes(*roots):
    """Of the memory of all tensors that can be reached."""
    found, seen, waiting = {}, set(), list(roots)
    while waiting:
        x = waiting.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, torch.Tensor):
            found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        elif isinstance(x, dict):
            waiting += x.values()
        elif isinstance(x, (list, tuple)):
            waiting += x
        elif hasattr(x, "__dict__"):
            waiting += vars(x).values()
    return sum(found.values())


def sizes(model, session, count):
    """Bytes of the session after every frame of a stream."""
    for out in streamed(model, session, (frame.clone() for frame in pixels(5, count))):
        del out
        yield kept_bytes(session)


def test_a_bounded_stream_does_not_grow(model):
    plain = list(sizes(model, session_of(), 30))
    assert plain[29] - plain[19] >= 10 * 4 * 3 * PIXELS**2  # the host: at least the pixels
    found = list(sizes(model, fp.bounded(session_of(), model), 60))
    assert found[59] <= found[19] + 1000 * 40  # but for the pointers of the bank, which are all there after 16 frames
    assert found[59] == found[30]
    own = {name: x for module in model.modules() for name, x in vars(module).items() if name.startswith("_fastprompt")}
    gc.collect()
    before = kept_bytes(own)
    list(sizes(model, fp.bounded(session_of(), model), 20))
    assert kept_bytes(own) == before  # nor do our caches


@pytest.mark.parametrize("objects", [1, 2])
def test_a_bounded_stream_gives_the_same_bits(model, objects):
    """With a correction on the last frame, and an object that comes later."""
    frames = pixels(1, 32)

    def run(session):
        yield from streamed(model, session, frames[:22])
        correct(session, 0, 21)
        yield model(session, frame_idx=21).pred_masks
        session.obj_id_to_idx(77)
        index = session.obj_id_to_idx(77)
        correct(session, index, 22)
        yield from streamed(model, session, frames[22:])

    want = list(run(session_of(objects=objects)))
    got = list(run(fp.bounded(session_of(objects=objects), model)))
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))


def test_a_bounded_video_gives_the_same_bits(model):
    """Forward, and in reverse from the middle; the video itself is the user's."""
    video, results = pixels(2, 22), []
    for bound in (lambda x: x, lambda x: fp.bounded(x, model)):
        session = bound(session_of(video, frame=9))
        model(session, frame_idx=9)
        found = [x.pred_masks for x in model.propagate_in_video_iterator(session)]
        session = bound(session_of(video, frame=9))
        model(session, frame_idx=9)
        found += [x.pred_masks for x in model.propagate_in_video_iterator(session, reverse=True)]
        results.append(found)
        assert session.num_frames == 22
    assert len(results[0]) > 20
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


def test_what_is_gone_is_an_error(model):
    session = fp.bounded(session_of(), model, back=2)
    frames = pixels(3, 24)
    list(streamed(model, session, frames))
    assert session.num_frames == 24
    assert sorted(session.processed_frames) == [21, 22, 23]
    bank = session.output_dict_per_obj[0]["non_cond_frame_outputs"]
    assert sorted(bank) == list(range(6, 24))
    assert [k for k in bank if "maskmem_features" in bank[k]] == list(range(15, 24))
    correct(session, 0, 21)
    model(session, frame_idx=21)  # two back
    correct(session, 0, 12)
    with pytest.raises(LookupError, match=r"frame 12 is gone.*larger back"):
        model(session, frame_idx=12)
    with pytest.raises(LookupError, match=r"maskmem_features of a frame that far back is gone"):
        bank[10]["maskmem_features"]
    with pytest.raises(LookupError, match=r"frame 3 is gone"):
        bank.get(3)
    assert bank.get(99) is None
    assert bank.gone == [[1, 5]]


def test_copies_and_pickles_of_a_bounded_session(model):
    session = fp.bounded(session_of(), model)
    frames = pixels(4, 30)
    list(streamed(model, session, frames[:20]))
    others = copy.deepcopy(session), pickle.loads(pickle.dumps(session))
    want = list(streamed(model, session, frames[20:]))
    for other in others:
        got = list(streamed(model, other, frames[20:]))
        assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))
        assert len(other.processed_frames) == 30
        assert isinstance(other.processed_frames, Frames)
        assert len(dict(other.processed_frames.items())) == 1
    session.reset_inference_session()
    assert len(session.output_dict_per_obj) == 0


def test_a_session_in_use_is_bounded(model):
    session, frames = session_of(), pixels(4, 30)
    first = list(streamed(model, session, frames[:20]))
    other = copy.deepcopy(session)
    fp.bounded(session, model)
    assert kept_bytes(session.output_dict_per_obj) < 0.6 * kept_bytes(other.output_dict_per_obj)
    got, want = (list(streamed(model, x, frames[20:])) for x in (session, other))
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))
    assert len(first) == 20


def test_bad_arguments(model):
    with pytest.raises(TypeError, match=r"session must be a Sam2Video.*, got int"):
        fp.bounded(3, model)
    with pytest.raises(TypeError, match=r"session must be .*, got dict"):
        fp.bounded({}, model)
    with pytest.raises(TypeError, match=r"model must be a video model .*, got Linear"):
        fp.bounded(session_of(), torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"back must be an integer, got 1\.5"):
        fp.bounded(session_of(), model, back=1.5)
    with pytest.raises(ValueError, match=r"back must be 0 or more, got -1"):
        fp.bounded(session_of(), model, back=-1)

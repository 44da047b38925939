"""Streams: a video session that keeps what its model reads again, and no more."""

from typing import Any, TypeVar

Session = TypeVar("Session")

LARGE = ("maskmem_features", "maskmem_pos_enc", "pred_masks", "high_res_masks")  # of a frame's outputs


def bounded(session: Session, model: Any, *, back: int = 0) -> Session:
    """Let a video session forget, in place, what its model does not read again. Returns ``session``; the same masks.

    The hosts keep the outputs of every frame, and the pixels of every streamed one: 18 MB a frame and 5 MB for each
    further object in transformers, 0.8 MB an object in the package sam2. The models read the memory of the last frames
    (``num_maskmem`` - 1, 6 in all released models), the object pointers of some more (15), and the conditioning frames.

    With it, a session keeps these, and the pixels of the last frame. A model that is sent back to what is gone raises a
    LookupError: it never goes on with less memory than it would have had. Conditioning frames, those with clicks or
    masks before they were tracked, are kept as ever; so is a video that was given as a whole, and what is known of each
    frame tracked (some 300 bytes).

    Args:
        session: an inference session of transformers' Sam2Video, EdgeTamVideo or Sam3TrackerVideo, or the
            ``inference_state`` of the package sam2's video predictor. Streaming or not, empty or in use.
        model: the model that it is for, accelerated or not: it says how far back it reads.
        back: frames that may be gone back, to correct them: so many more are kept.

    Raises:
        TypeError: ``session`` or ``model`` is something else, or ``back`` no integer.
        ValueError: ``back`` is negative.

    Example:
        >>> import fastprompt as fp, torch
        >>> from transformers import Sam2VideoConfig, Sam2VideoInferenceSession, Sam2VideoModel
        >>> model = Sam2VideoModel(Sam2VideoConfig()).eval()
        >>> session = Sam2VideoInferenceSession(video_height=480, video_width=640, dtype=torch.float32)
        >>> session = fp.bounded(session, model)
    """
    if isinstance(back, bool) or not isinstance(back, int):
        raise TypeError(f"back must be an integer, got {back!r}")
    if back < 0:
        raise ValueError(f"back must be 0 or more, got {back}")
    memories, pointers = (n + back for n in reaches(model))
    state: Any = session if isinstance(session, dict) else getattr(session, "__dict__", {})
    if "output_dict_per_obj" not in state or not {"processed_frames", "images"} & set(state):
        kinds = "a Sam2Video, EdgeTamVideo or Sam3TrackerVideo session of transformers or an inference_state of sam2"
        raise TypeError(f"session must be {kinds}, got {type(session).__name__}")
    state["output_dict_per_obj"] = Objects(state["output_dict_per_obj"], memories, pointers)
    if "processed_frames" in state and state["processed_frames"] is None:
        state["processed_frames"] = Frames(back)
    return session


def reaches(model: Any) -> tuple[int, int]:
    """How many frames back a model reads the memory, and how many the object pointer."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "max_object_pointers_in_encoder"):
        return max(config.num_maskmem - 1, 0), max(config.max_object_pointers_in_encoder - 1, 0)
    if hasattr(model, "max_obj_ptrs_in_encoder"):
        stride = model.memory_temporal_stride_for_eval
        return max((model.num_maskmem - 2) * stride + 1, 0), max(model.max_obj_ptrs_in_encoder - 1, 0)
    raise TypeError(f"model must be a video model of transformers or sam2, got {type(model).__name__}")


class Kept(dict[int, Any]):
    """A dict with numbers of its own, which copies and pickles have too."""

    def __reduce__(self) -> Any:
        return refilled, (type(self), dict(self), vars(self))


def refilled(cls: Any, items: dict[int, Any], numbers: dict[str, Any]) -> Any:
    found = cls.__new__(cls)
    vars(found).update(numbers)
    dict.update(found, items)
    return found


class Window(Kept):
    """What there is of the frames within ``reach`` of the last one that was set; of others, that they were there."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.gone: list[list[int]] = []  # first and last of each run of frames
        self.count = 0  # of all frames, gone or not

    def __setitem__(self, frame: int, value: Any) -> None:
        self.count += frame not in self and not self.had(frame)
        super().__setitem__(frame, value)
        for other in [k for k in self if abs(k - frame) > self.reach]:
            del self[other]
            if not self.had(other):
                self.note(other)

    def __missing__(self, frame: int) -> Any:
        if self.had(frame):
            raise LookupError(f"frame {frame} is gone: the session was bounded; give fastprompt.bounded a larger back")
        raise KeyError(frame)

    def get(self, frame: int, default: Any = None) -> Any:
        return self[frame] if frame in self or self.had(frame) else default

    def clear(self) -> None:
        super().clear()
        self.gone, self.count = [], 0

    def had(self, frame: int) -> bool:
        return any(first <= frame <= last for first, last in self.gone)

    def note(self, frame: int) -> None:
        for run in self.gone:
            if frame in (run[0] - 1, run[1] + 1):
                run[:] = min(frame, run[0]), max(frame, run[1])
                return
        self.gone.append([frame, frame])


class Frames(Window):
    """The pixels of a stream. Its length is the number of frames that there were: the next one gets that number."""

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return self.count > 0


class Bank(Window):
    """The outputs of an object on the frames that nobody has clicked on."""

    def __init__(self, memories: int, pointers: int) -> None:
        super().__init__(max(memories, pointers))
        self.memories = memories

    def __setitem__(self, frame: int, value: Any) -> None:
        super().__setitem__(frame, value)
        for other, outputs in list(self.items()):
            if abs(other - frame) > self.memories and not isinstance(outputs, Small):
                super().__setitem__(other, Small({k: v for k, v in outputs.items() if k not in LARGE}))


class Small(dict[str, Any]):
    """The outputs of a frame without the large ones: its object pointer, above all."""

    def __missing__(self, name: str) -> Any:
        if name in LARGE:
            text = "of a frame that far back is gone: the session was bounded; give fastprompt.bounded a larger back"
            raise LookupError(f"{name} {text}")
        raise KeyError(name)


class Objects(Kept):
    """The outputs of all objects, each with a :class:`Bank`."""

    def __init__(self, objects: dict[int, Any], memories: int, pointers: int) -> None:
        super().__init__()
        self.reaches = memories, pointers
        for index, outputs in objects.items():
            self[index] = outputs

    def __setitem__(self, index: int, outputs: Any) -> None:
        super().__setitem__(index, outputs)
        bank = Bank(*self.reaches)
        for frame, found in outputs["non_cond_frame_outputs"].items():
            bank[frame] = found
        outputs["non_cond_frame_outputs"] = bank


__all__ = ["bounded"]

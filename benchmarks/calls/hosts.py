"""The table of hosts: what each is built from, which calls it has, and what they cost."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from calls import images, packages, trunks, videos


@dataclass
class Call:
    """A call as its user does it, and the same on tensors alone, which an export takes."""

    make: Callable  # (model) or, of a video, (model, folder) -> run() -> a tensor, or some
    gflop: float  # counted or guessed: only the estimate of the time wants it
    plain: Callable | None = None  # (model) -> module, its inputs


@dataclass
class Host:
    package: str
    build: Callable  # (kind of attention, small) -> model
    calls: dict[str, Call]
    kinds: tuple[str, ...] = ("eager", "sdpa")  # of attention; the first is what errors are measured from
    needs: tuple[str, ...] = ()  # further packages
    named: bool = False  # measured only where --hosts names it: like another one, or too long


def calls(file, encode=0.0, click=0.0):
    found = {
        "encode": Call(file.encode, encode, file.plain_encode),
        "click": Call(file.click, click, file.plain_click),
    }
    return {name: call for name, call in found.items() if call.gflop}


def frames(one, three):
    return {
        "frame, 1 object": Call(partial(videos.frame, 1), one),
        "frame, 3 objects": Call(partial(videos.frame, 3), three),
    }


# Each of the packages has one form of attention: sam2 calls torch's own, the others write it out.
HOSTS = {
    "SamModel, ViT-B": Host("transformers", partial(images.sam, "Sam"), calls(images, 967, 4)),
    "SamHQModel, ViT-B": Host("transformers", partial(images.sam, "SamHQ"), calls(images, 967, 6), named=True),
    "Sam2Model, Hiera-T": Host("transformers", partial(images.sam2, "T"), calls(images, 291, 5)),
    "Sam2Model, Hiera-B+": Host("transformers", partial(images.sam2, "B+"), calls(images, 645, 5)),
    "EdgeTamModel": Host("transformers", images.edgetam, calls(images, 70, 5), needs=("timm",)),
    "Sam3TrackerModel, 2 of 32 layers": Host("transformers", partial(images.sam3_tracker, 2), calls(images, 400, 5)),
    "segment-anything, ViT-B": Host(
        "segment_anything", packages.segment_anything, calls(packages, 967, 4), ("eager",), ("torchvision",)
    ),
    "mobile_sam, TinyViT": Host(
        "mobile_sam", packages.mobile_sam, calls(packages, 120, 4), ("eager",), ("timm", "torchvision")
    ),
    "sam2, Hiera-T": Host("sam2", packages.sam2_predictor, calls(packages, 291, 5), ("sdpa",), ("torchvision",)),
    "Sam2VideoModel, Hiera-T": Host("transformers", partial(videos.sam2_video, "T"), frames(940, 2240)),
    "EdgeTamVideoModel": Host("transformers", videos.edgetam_video, frames(210, 480), needs=("timm",)),
    "Sam3TrackerVideoModel, 1 of 32 layers": Host(
        "transformers", partial(videos.sam3_tracker_video, 1), frames(1330, 3300), named=True
    ),
    "sam2 video, Hiera-T": Host(
        "sam2", videos.sam2_package, frames(940, 2240), ("sdpa",), ("torchvision", "PIL", "tqdm")
    ),
    "CLIPSeg": Host("transformers", trunks.clipseg, calls(trunks, 100, 8)),
    "SegGPT, 6 layers": Host("transformers", trunks.seggpt, calls(trunks, 500), ("eager",), named=True),
    "Sam3Model, 1 layer of each part": Host("transformers", trunks.sam3, calls(trunks, 600), named=True),
}

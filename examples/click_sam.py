"""A click on a picture with an accelerated SAM: the same masks, sooner.

pip install ".[torch,images]" transformers
python examples/click_sam.py                                   # random weights: the time is real, the mask is not
python examples/click_sam.py --weights DIR --image cat.jpg --click 320,200   # a folder that transformers can load
"""

import argparse
import statistics
import time

import numpy as np
import torch
from PIL import Image
from skimage import data
from transformers import SamConfig, SamModel

import fastprompt as fp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", help="folder of a SAM in transformers' format; default: random")
    parser.add_argument("--image", help="picture; default: the astronaut of scikit-image")
    parser.add_argument("--click", default="200,150", metavar="X,Y", help="pixel of the object")
    parser.add_argument("--out", default="click.png", help="the mask")
    options = parser.parse_args()

    picture = Image.open(options.image).convert("RGB") if options.image else Image.fromarray(data.astronaut())
    click = [float(x) for x in options.click.split(",")]
    torch.manual_seed(0)
    model = (SamModel.from_pretrained(options.weights) if options.weights else SamModel(SamConfig())).eval()

    scale = 1024 / max(picture.size)
    seen = (round(picture.height * scale), round(picture.width * scale))
    pixels = np.zeros((1024, 1024, 3), np.float32)
    pixels[: seen[0], : seen[1]] = np.asarray(picture.resize(seen[::-1]), np.float32)
    pixels[: seen[0], : seen[1]] -= (123.675, 116.28, 103.53)
    pixels /= (58.395, 57.12, 57.375)
    point = torch.tensor([[[[x * scale for x in click]]]])

    with torch.no_grad():
        start = time.perf_counter()
        image = model.get_image_embeddings(torch.from_numpy(pixels.transpose(2, 0, 1))[None])
        print(f"image embedding {time.perf_counter() - start:6.2f} s, once")
        before, host = timed(lambda: model(image_embeddings=image, input_points=point))
        fp.accelerate(model)
        after, fast = timed(lambda: model(image_embeddings=image, input_points=point))
    print(fp.report(model))
    difference = float((fast.pred_masks - host.pred_masks).abs().max())
    print(f"a click: {before:.1f} ms before, {after:.1f} ms after, {before / after:.1f} times as fast")
    print(f"largest difference of a logit {difference:.1e}, of logits up to {float(host.pred_masks.abs().max()):.1f}")

    size = (picture.height, picture.width)
    masks = fp.resize_masks(fast.pred_masks[0, 0], size, frame=(1024, 1024), crop=seen)
    best = int(fast.iou_scores[0, 0].argmax())
    Image.fromarray(masks.masks[best].numpy()).save(options.out)
    print(f"wrote {options.out}: {int(masks.area[best])} pixels, box {masks.box[best].tolist()}")


def timed(call, rounds=10):
    """Median of some calls in ms, and the last result."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), result


if __name__ == "__main__":
    main()

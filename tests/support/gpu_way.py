"""A GPU's way through the drop-ins, on the CPU: no kernel for a GPU runs, but all that is around it."""

import pytest
import torch

from fastprompt import _gpu
from fastprompt.nn.parts import drop_in

needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]
DEVICES = ["as if on a GPU", pytest.param("cuda", marks=needs_gpu)]
TOLERANCE = {torch.float32: 3e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}  # of the largest value


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """A GPU; or the CPU's tensors on a GPU's way through the drop-ins, with the CPU's attention."""
    if request.param != "cuda":
        monkeypatch.setattr(_gpu, "is_cuda", lambda x: isinstance(x, torch.Tensor))
        monkeypatch.setattr(_gpu, "triton_reason", lambda: None)
        monkeypatch.setattr(drop_in, "CPU", torch.device("meta"))  # no module is there: none is copied to float32
    return "cuda" if request.param == "cuda" else "cpu"

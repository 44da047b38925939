"""Models as files for other runtimes: ONNX, ONNX Runtime, OpenVINO. The runtimes are imported only when they are used."""

from fastprompt.export import onnxruntime
from fastprompt.export._onnx import Exported, onnx

__all__ = ["Exported", "onnx", "onnxruntime"]

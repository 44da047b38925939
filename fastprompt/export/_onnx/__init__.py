"""ONNX files: how a model becomes one, what is in it, and whether it gives the numbers of the model."""

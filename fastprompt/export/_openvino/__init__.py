"""Our nodes in OpenVINO: in C++, or as Python operators."""

"""The compiler from an ONNX file to the graph file that the Julia worker reads."""

"""Model bundles, the compiler from ONNX to graph files, and the engines that run models."""

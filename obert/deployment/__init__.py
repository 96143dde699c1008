"""Export to ONNX, the integer form of the file, parity with PyTorch, and CPU timing."""

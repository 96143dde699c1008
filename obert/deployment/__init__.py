"""Export to ONNX, parity with PyTorch, and CPU timing."""

"""Run an exported model with NumPy and Numba alone: python examples/sparse_inference.py path/to/model.onnx"""

import sys

import numpy as np

from obert.sparse import SparseModel

model = SparseModel.load(sys.argv[1])  # on all cores of this process
tokens = np.array([[2, 41, 77, 12, 3], [2, 58, 3, 0, 0]])  # of a tokenizer; 0 fills up the shorter text
logits = model(input_ids=tokens, attention_mask=tokens != 0)[0]
print(f"{model.threads} threads, {model.packed_bytes / 1e6:.1f} MB")
print("classes", logits.argmax(axis=-1).tolist())

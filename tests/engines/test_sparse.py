"""What the contract of engines does not hold of the sparse one: refused graphs, and what it says of itself."""

import onnx
import pytest

from obert.commands.cli import main
from obert.engines import EngineError, ModelFiles, _integer_products
from obert.engines.sparse import Sparse
from obert.sparse import SparseModel


@pytest.fixture
def foreign(tmp_path):
    """A graph that is no encoder."""
    path = tmp_path / "foreign.onnx"
    onnx.save(_integer_products.graph(), path)
    return ModelFiles(path, tmp_path, None)


def test_a_graph_that_is_not_understood_is_refused_before_it_is_timed(foreign):
    reason = Sparse.unfit_reason(foreign)
    assert reason.startswith("obert sparse does not run this model: ")
    assert str(foreign.onnx) in reason and "\n" not in reason
    with pytest.raises(EngineError, match="does not understand"):
        Sparse(foreign, 1)


def test_a_refused_graph_is_named_by_hand_too(foreign, capsys, tmp_path):
    options = ["--engines", "sparse", "onnxruntime", "--batch-sizes", "32", "--lengths", "256", "--threads", "1"]
    options += ["--iterations", "5", "--busy", "--output", str(tmp_path / "out")]
    assert main(["benchmark", str(foreign.onnx), *options]) == 0
    said = capsys.readouterr().out
    assert "\nsparse did not time foreign.onnx. obert sparse does not run this model: " in said
    assert "\nonnxruntime " in said


def test_products_that_are_wrong_are_found(monkeypatch):
    computed = SparseModel.__call__
    monkeypatch.setattr(SparseModel, "__call__", lambda *a, **inputs: [out + 3 for out in computed(*a, **inputs)])
    assert Sparse.integer_product_error.__wrapped__(Sparse) == 3

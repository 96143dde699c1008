import pytest

from obert.second_order import compiled


@pytest.fixture(params=["compiled", "batched"])
def way(request, monkeypatch):
    """Blocks are solved by compiled code, and as on a GPU."""
    if request.param == "batched":
        monkeypatch.setattr(compiled, "LARGEST", 0)
    return request.param

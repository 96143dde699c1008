"""Predictions and curves that something has damaged since: a message with the file and the command that mends it."""

import pytest

from obert.foundation.errors import UserError
from tables.examples import record

PREDICTIONS = {
    "empty": b"",
    "not_utf8": b'{"id": "\xff", "score": 1}\n',
    "cut_off": b'{"id": "a", "score": 1.0}\n{"id": "b", "sco',
    "deep": b"[" * 100_000,
    "a_list": b"[1]\n",
    "no_score": b'{"id": "a"}\n',
    "null": b'{"id": "a", "terms": [1, null]}\n',
    "text": b'{"id": "a", "score": "good"}\n',
    "blank": b"\n",
}
HEADER = b"step,epoch,loss,learning_rate,sparsity\n"
CURVES = {
    "empty": b"",
    "not_utf8": HEADER + b"1,0.1,\xff,1,0\n",
    "cut_off": HEADER + b"1,0.1,0.5,0.1,0\n2,0.2,0.",
    "text": HEADER + b"1,0.1,much,0.1,0\n",
    "lacks_a_column": b"step,loss\n1,0.5\n",
    "ragged": HEADER + b"1,2,3,4,5,6\n1,2,3,4,5,6,7\n",
}


@pytest.fixture
def results(make_results):
    """Results of one run with predictions and curves, and its folder."""
    made = record("teacher", 50.0)
    found = make_results([(made, (100, 100, 0, 0), 4)])
    return found, made.key, found.folder / made.key.path


@pytest.mark.parametrize("content", PREDICTIONS.values(), ids=PREDICTIONS)
def test_damaged_predictions(results, content):
    found, key, folder = results
    (folder / "predictions.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"predictions\.jsonl(, line \d+)? is (damaged|empty).* again\.") as error:
        found.terms(key)
    assert "python -m obert teacher" in str(error.value)


@pytest.mark.parametrize("content", CURVES.values(), ids=CURVES)
def test_damaged_curves(results, content):
    found, key, folder = results
    (folder / "curves.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"(?s)curves\.csv (is damaged|lacks columns).* again\."):
        found.curves(key)


def test_whole_files_are_read_and_a_loss_may_be_no_number(results):
    found, key, folder = results
    assert found.terms(key)[0].tolist() == [100.0, 100.0, 0.0, 0.0]
    assert len(found.curves(key)) == 4
    (folder / "curves.csv").write_bytes(HEADER + b"1,0.1,nan,0.1,0\n")
    assert found.curves(key)["loss"].isna().all()

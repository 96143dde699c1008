"""Data from local folders and the Hub."""

import pandas as pd
import pytest

from obert.data import splits
from obert.data.splits import load_splits
from obert.foundation.errors import UserError


@pytest.mark.parametrize("suffix", splits.SUFFIXES)
def test_local_data_keeps_text_as_it_is(tmp_path, suffix):
    frame = pd.DataFrame({"id": ["01", "2020-01-01"], "label": [0, 1]})
    for split in ("train", "validation"):
        path = tmp_path / f"{split}{suffix}"
        if suffix == ".parquet":
            frame.to_parquet(path)
        else:
            frame.to_json(path, orient="records", lines=True)
    assert load_splits(str(tmp_path), ("id", "label"))["train"].to_list() == frame.to_dict("records")
    with pytest.raises(UserError, match="lacks column sentence; found: id, label"):
        load_splits(str(tmp_path), ("sentence",))
    (tmp_path / f"validation{suffix}").unlink()
    with pytest.raises(UserError, match="holds no split 'validation'"):
        load_splits(str(tmp_path), ("id",))


def test_damaged_local_data(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"id": ')
    with pytest.raises(UserError, match="is not JSON lines"):
        load_splits(str(tmp_path), ("id",))


def test_hub_out_of_reach():
    with pytest.raises(UserError, match="cannot be loaded from the Hugging Face Hub"):
        load_splits("owner/name", ("id",))

"""Data from folders, files and the Hub: what is read, what is refused, and how the message says so."""

import io
import json
import logging
import sys

import pandas as pd
import pytest
import zstandard
from datasets import ClassLabel, Dataset, Features, Value

from obert.data import checked, rows, splits
from obert.data.columns import Identifier, Label, Text
from obert.data.splits import load_splits
from obert.foundation.errors import UserError

COLUMNS = {"id": Identifier(), "sentence": Text(), "label": Label()}
GOOD = [{"sentence": "a fine film", "label": 1}, {"sentence": "a dull film", "label": 0}]


def as_bytes(content, suffix):
    """Rows written in a format by its own library; text and bytes as they are."""
    if not isinstance(content, list):
        return content.encode() if isinstance(content, str) else content
    if suffix == ".parquet":
        file = io.BytesIO()
        pd.DataFrame(content).to_parquet(file)
        return file.getvalue()
    if suffix in (".csv", ".tsv"):
        separator = "\t" if suffix == ".tsv" else ","
        return pd.DataFrame(content).to_csv(index=False, sep=separator).encode()
    if suffix == ".json":
        return json.dumps(content, indent=1).encode()
    lines = "".join(json.dumps(row) + "\n" for row in content).encode()
    return zstandard.compress(lines) if suffix.endswith(".zst") else lines


@pytest.fixture
def read(tmp_path):
    """Splits of a folder with this content, the same in both unless said otherwise."""

    def load(train, validation=None, suffix=".jsonl", columns=COLUMNS, **options):
        contents = {"train": train, "validation": train if validation is None else validation}
        for split, content in contents.items():
            (tmp_path / f"{split}{suffix}").write_bytes(as_bytes(content, suffix))
        return load_splits(str(tmp_path), columns, **options)

    return load


def refused(read, *contents, **options):
    with pytest.raises(UserError) as error:
        read(*contents, **options)
    return str(error.value)


@pytest.mark.parametrize("suffix", rows.READERS)
def test_text_stays_as_it_is_in_every_format(read, suffix):
    texts = ["01", "2020-01-01", "NA", "null", 'a "quoted" word', "two\nlines", "a,b\tc", "café 電影"]
    given = [{"id": f"0{i}", "sentence": text, "label": i % 2} for i, text in enumerate(texts)]
    found = read(given, suffix=suffix)["train"]
    assert found.to_list() == given
    assert found.cache_files  # mapped from the disk, not held in memory


@pytest.mark.parametrize("suffix", rows.READERS)
def test_a_missing_column_or_split_is_named(read, tmp_path, suffix):
    assert "lacks column text; found: sentence, label" in refused(
        read, GOOD, suffix=suffix, columns={"text": Text(), "label": Label()}
    )
    (tmp_path / f"validation{suffix}").unlink()
    with pytest.raises(UserError, match="holds no split 'validation'"):
        load_splits(str(tmp_path), COLUMNS)


def test_a_folder_with_a_split_in_two_formats_is_refused(read):
    read(GOOD, suffix=".csv")
    assert "split 'train' more than once: train.jsonl, train.csv" in refused(read, GOOD)


def test_columns_that_nobody_asked_for_are_not_read(read):
    """A timestamp cannot be written to a record."""
    stamped = [{**row, "when": pd.Timestamp("2020-01-01")} for row in GOOD]
    assert read(stamped, suffix=".parquet")["train"].column_names == ["id", "sentence", "label"]


def test_columns_of_mixed_types_that_nobody_asked_for_do_not_matter(read):
    mixed = [{**GOOD[0], "note": 3}, {**GOOD[1], "note": {"a": [None, "x"]}}]
    assert read(mixed)["train"].column_names == ["id", "sentence", "label"]
    json.dumps(read(mixed)["train"].to_list())


LINES = '{"sentence": "a fine film", "label": 1}\n{"sentence": "a dull film", "label": 0}\n'


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".jsonl", "\ufeff" + LINES),
        (".jsonl", LINES.replace("\n", "\n\n \n")),
        (".jsonl", LINES.replace("\n", "\r\n")),
        (".jsonl", LINES.rstrip()),
        (".jsonl", f"[{LINES.strip().replace(chr(10), ',')}]"),
        (".json", LINES),
        (".csv", "\ufeffsentence,label\r\na fine film,1\r\n\r\na dull film,0\r\n"),
        (".csv", 'label,other,sentence\n1,"x\n\ny",a fine film\n0,,a dull film'),
        (".tsv", "sentence\tlabel\na fine film\t1\na dull film\t0\n"),
    ],
)
def test_files_as_programs_write_them(read, suffix, content):
    found = read(content, suffix=suffix)["train"]
    assert [(row["sentence"], row["label"]) for row in found] == [("a fine film", 1), ("a dull film", 0)]


@pytest.mark.parametrize(
    ("suffix", "content", "expected"),
    [
        (".jsonl", "", "train.jsonl is empty"),
        (".jsonl", "\n\n", "train.jsonl holds no rows"),
        (".jsonl", '{"sentence": "x", "label": 1}\n{"sentence": \n', "train.jsonl, line 2: not JSON"),
        (".jsonl", "3\n[]\n4\n", "train.jsonl, line 1: is not a JSON object. 2 more rows have it (line 2, 3)"),
        (".jsonl", "[1, 2", "begins as a JSON array and is none"),
        (".jsonl", '[{"sentence": "x", "label": 1}, 5]', "train.jsonl, row 2: is not a JSON object"),
        (".jsonl", "[" * 100_000, "is none"),
        (".json", '{\n"data": []}', "line 1: not JSON"),
        (".csv", "", "train.csv is empty"),
        (".csv", "\n", "train.csv is empty: a header"),
        (".csv", "sentence,label\n", "train.csv holds no rows"),
        (".csv", "sentence,label\nx,1\na, b,1\nx\n", "line 3: has 3 values where the header has 2"),
        (".csv", "sentence,label,label\nx,1,1\n", "line 1: 2 columns are called 'label'"),
        (".csv", "sentence;label\nx;1\n", "must be separated by commas"),
        (".csv", 'sentence,label\nx,1\n"x,1\nx,1\n', "lines 3 to 4: not a row of values"),
        (".csv", "sentence,label\nx,1\ncaf\xe9,1\n".encode("latin-1"), "line 3: not UTF-8 (0xe9 at byte 4)"),
        (".csv", "sentence,label\n".encode("utf-16"), "line 1: not UTF-8"),
        (".csv", 'sentence,label\n"x\ny",1\n,0\n', "train.csv, line 4, column 'sentence': '' is blank"),
        (".parquet", "", "train.parquet is empty"),
        (".parquet", "PAR1 and no more", "cannot be read as Parquet"),
        (".parquet", as_bytes(GOOD, ".parquet")[:-9], "cannot be read as Parquet"),
        (".parquet", as_bytes(GOOD, ".parquet").replace(b"fine", b"\xff\xfe\xfd\xfc"), "cannot be read as Parquet"),
        (".jsonl.zst", b"not zstandard", "is damaged, or was not made by zstandard"),
        (".jsonl.zst", as_bytes(GOOD * 50, ".jsonl.zst")[:30], "train.jsonl.zst"),
    ],
)
def test_damaged_files_are_refused_in_one_message(read, suffix, content, expected):
    assert expected in refused(read, content, suffix=suffix)


def test_a_parquet_file_without_rows_is_refused(read):
    assert "holds no rows" in refused(read, as_bytes([], ".parquet"), suffix=".parquet", columns={})
    empty = io.BytesIO()
    pd.DataFrame({"sentence": [], "label": []}).to_parquet(empty)
    assert "holds no rows" in refused(read, empty.getvalue(), suffix=".parquet")


BAD_VALUES = [
    ({"sentence": None, "label": 1}, "column 'sentence': is null. Allowed: text that is not blank"),
    ({"sentence": " \t", "label": 1}, r"column 'sentence': ' \t' is blank"),
    ({"sentence": 5, "label": 1}, "column 'sentence': 5 is a number"),
    ({"sentence": ["x"], "label": 1}, "column 'sentence': ['x'] is a list"),
    ({"sentence": "\ud800", "label": 1}, "lone surrogate"),
    ({"label": 1}, "column 'sentence': is missing"),
    ({"sentence": "fine", "label": None}, "column 'label': is null. Allowed: a class: a word, or a whole number"),
    ({"sentence": "fine"}, "column 'label': is missing"),
    ({"sentence": "fine", "label": ""}, "column 'label': '' is blank"),
    ({"sentence": "fine", "label": 0.5}, "column 'label': 0.5 is a number that is not whole"),
    ({"sentence": "fine", "label": float("nan")}, "column 'label': nan is a number that is not whole"),
    ({"sentence": "fine", "label": [1]}, "column 'label': [1] is a list"),
]


@pytest.mark.parametrize(("row", "expected"), BAD_VALUES)
def test_a_bad_value_is_refused_with_its_row(read, row, expected):
    message = refused(read, GOOD, [*GOOD, row, GOOD[0], row])
    assert "validation.jsonl, line 3, " in message and expected in message
    assert "1 more row has it (line 5)" in message


def test_every_kind_of_fault_is_counted(read):
    """A column that is null for 1,000 rows and then text, one that is text and then null, and one that is missing."""
    lines = [{"sentence": None, "label": 1}] * 1000 + GOOD + [{"sentence": "x", "label": None}, {"label": 0}]
    message = refused(read, lines)
    assert len(message.splitlines()) == 3
    assert "line 1, column 'sentence': is null" in message and "999 more rows have it (line 2, 3, 4, 5, ...)" in message
    assert "line 1003, column 'label': is null" in message
    assert "line 1004, column 'sentence': is missing" in message


def test_a_column_that_is_null_for_a_thousand_rows_and_then_text_is_read_where_it_may_be(read):
    from obert.data.columns import Remark

    found = read([{**GOOD[i % 2], "note": None if i < 1000 else "x"} for i in range(1002)], columns={"note": Remark()})
    assert found["train"]["note"][998:1001] == ["", "", "x"]


def test_long_values_are_cut_off_in_messages(read):
    assert len(refused(read, [{"sentence": ["x" * 10_000], "label": 1}])) < 500


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_ids_that_are_not_unique_are_named(read, suffix):
    rows = [{"id": i, **GOOD[n % 2]} for n, i in enumerate(["a", "b", "a", "c", "c", "a"])]
    first, unit = {".jsonl": (1, "lines"), ".csv": (2, "lines"), ".parquet": (1, "rows")}[suffix]
    message = refused(read, rows, suffix=suffix)
    assert "column 'id': ids must be unique" in message
    assert f"'a' ({unit} {first}, {first + 2}, {first + 5}); 'c' ({unit} {first + 3}, {first + 4})" in message


def test_numbers_and_text_are_the_same_id(read):
    assert "'1' (lines 1, 2)" in refused(read, [{"id": 1, **GOOD[0]}, {"id": "1", **GOOD[1]}])


@pytest.mark.parametrize("value", [None, "", 1.5, True])
def test_an_id_that_is_none_is_refused(read, value):
    message = refused(read, [{"id": "a", **GOOD[0]}, {"id": value, **GOOD[1]}])
    assert "line 2, column 'id'" in message and "text or a whole number" in message


def test_ids_are_made_where_there_are_none(read):
    assert read(GOOD)["validation"]["id"] == ["validation-0", "validation-1"]
    by_index = read([{**row, "idx": 7 + i} for i, row in enumerate(GOOD)])["train"]
    assert by_index["id"] == ["train-7", "train-8"]
    assert "column 'idx'" in refused(read, [{**row, "idx": 7} for row in GOOD])


def test_data_is_checked_once_and_again_when_it_changes(read, monkeypatch):
    first = read(GOOD)["train"].to_list()
    with monkeypatch.context() as patch:
        patch.setattr(checked, "_write", lambda *arguments: pytest.fail("read a second time"))
        assert read(GOOD)["train"].to_list() == first
    assert "is null" in refused(read, [{**GOOD[0], "label": None}])
    assert "is null" in refused(read, [{**GOOD[0], "label": None}])  # what was refused is not kept
    assert read(GOOD[::-1])["train"].to_list() != first


def test_one_file_is_divided_by_its_text(tmp_path):
    """The same text stays on one side; the same rows are held out whatever their order."""
    lines = [{"sentence": f"film {i // 2}", "label": i % 2, "id": i} for i in range(400)]
    path = tmp_path / "reviews.csv"
    pd.DataFrame(lines).to_csv(path, index=False)
    found = load_splits(str(path), COLUMNS)
    texts = {split: set(data["sentence"]) for split, data in found.items()}
    assert not texts["train"] & texts["validation"]
    assert len(texts["validation"]) == 20 and len(texts["train"]) == 180
    assert len(found["validation"]) == 40 and len(found["train"]) == 360
    pd.DataFrame(lines[::-1]).to_csv(path, index=False)
    assert set(load_splits(str(path), COLUMNS)["validation"]["sentence"]) == texts["validation"]


def test_one_file_is_divided_by_the_columns_that_stay_together(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_bytes(as_bytes([{"context": f"c {i % 20}", "question": f"q {i}"} for i in range(200)], ".jsonl"))
    found = load_splits(str(path), {"context": Text(), "question": Text()}, together=("context",))
    assert len(set(found["validation"]["context"])) == 2 and len(found["validation"]) == 20
    assert not set(found["train"]["context"]) & set(found["validation"]["context"])


def test_one_file_that_cannot_be_divided_is_refused(tmp_path):
    path = tmp_path / "reviews.jsonl"
    path.write_bytes(as_bytes([{"sentence": "same", "label": i} for i in (0, 1)], ".jsonl"))
    with pytest.raises(UserError, match="too few to hold some out"):
        load_splits(str(path), COLUMNS)
    path.write_bytes(as_bytes([{"sentence": f"s{i}", "label": str(i)} for i in range(20)], ".jsonl"))
    with pytest.raises(
        UserError, match=r"reviews.jsonl, line \d+, column 'label': .* no training example has|no class"
    ):
        load_splits(str(path), COLUMNS)


def test_a_file_of_another_format_or_a_missing_one_is_refused(tmp_path):
    (tmp_path / "reviews.txt").write_text("x")
    with pytest.raises(UserError, match=r"must end in one of \.jsonl, "):
        load_splits(str(tmp_path / "reviews.txt"), COLUMNS)
    with pytest.raises(UserError, match=r"no folder 'reviews\.csv' below .*, nor a file"):
        load_splits("reviews.csv", COLUMNS)


def test_hub_out_of_reach():
    with pytest.raises(UserError, match="cannot be loaded from the Hugging Face Hub"):
        load_splits("owner/name", COLUMNS)


def test_the_hub_is_read_as_files_are(monkeypatch):
    """Columns of the task only, class names kept, rows counted from 1."""
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["z", "a"]), "when": Value("date32")})
    stored = {"sentence": ["x", "y", "v"], "label": [0, 1, 1], "when": [None] * 3}

    def hub(name, config, split):
        assert (name, config) == ("owner/name", "small")
        return Dataset.from_dict(stored, features=features)

    monkeypatch.setattr("datasets.load_dataset", hub)
    found = load_splits("owner/name", COLUMNS, "small")["train"]
    assert found.column_names == ["id", "sentence", "label"]
    assert (found["label"], found.features["label"].names) == ([0, 1, 1], ["z", "a"])
    named = load_splits("owner/name:small", COLUMNS, "large")["train"]
    assert named.to_list() == found.to_list()
    stored["label"] = [0, 1, -1]
    with pytest.raises(UserError, match=r"split 'train' of 'owner/name', row 3, column 'label': '-1' is no class"):
        load_splits("owner/name", COLUMNS, "small")


def test_two_lines_of_a_large_file_are_in_memory_at_a_time(tmp_path, caplog):
    """40 MB of text come and go; what stays is mapped from the disk."""
    import tracemalloc

    for split in ("train", "validation"):
        with (tmp_path / f"{split}.jsonl").open("w") as file:
            for i in range(4000):
                file.write(json.dumps({"sentence": f"{i} " + "x" * 5000, "label": i % 2}) + "\n")
    tracemalloc.start()
    try:
        with caplog.at_level(logging.WARNING):
            load_splits(str(tmp_path), COLUMNS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 15e6 + sys.getsizeof("x" * 5000) * rows.BATCH
    assert not caplog.records


def test_each_held_out_row_is_one_of_so_many(read, tmp_path):
    read([{"text": f"t{i}"} for i in range(401)], columns={"text": Text()})
    (tmp_path / "validation.jsonl").unlink()
    found = load_splits(str(tmp_path), {"text": Text()}, hold_out_every=200)
    assert found["validation"]["text"] == ["t0", "t200", "t400"] and len(found["train"]) == 398
    assert splits.HELD_OUT == 0.1

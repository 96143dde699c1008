"""Generated questions: exact spans, disjoint places, wordings kept for validation."""

import re

import pandas as pd
import pytest

from obert.experiment.recipes import load_task
from obert.tasks._places import DISTANCE, WORDING, Place, clean, distance_km, generate, split_of

LETTERS = "abdefgiklmnoprst"
NAMES = [f"{a.upper()}{b}{c}{d}" for a in LETTERS[:8] for b in "aeiou" for c in "lmnr" for d in ("da", "ton", "vik")]


def table(**changes):
    """An invented table of places with the columns of the real one."""
    count = len(NAMES)
    zones = ("America/New_York", "America/Chicago", "America/Denver")
    return pd.DataFrame(
        {
            "asciiname": NAMES,
            "state": [("Nordia", "Westria", "Sudia")[i % 3] for i in range(count)],
            "population": [100 + 37 * i for i in range(count)],
            "elevation": [1.0 + 3 * i for i in range(count)],
            "dem": [5 + 3 * i for i in range(count)],
            "timezone": [zones[i % 3] for i in range(count)],
            "latitude": [25 + i % 40 + 0.3 for i in range(count)],
            "longitude": [-150 + i % 80 + 0.4 for i in range(count)],
        }
    ).assign(**changes)


@pytest.fixture(scope="module")
def places():
    return clean(table())


@pytest.fixture(scope="module")
def rows(places):
    return {split: generate(places, split) for split in ("train", "validation")}


def test_every_answer_is_a_span(rows):
    for row in rows["train"] + rows["validation"]:
        text, start = row["answers"]["text"][0], row["answers"]["answer_start"][0]
        assert row["context"][start : start + len(text)] == text
        assert "{" not in row["context"] + row["question"]


def test_answers_are_the_facts_of_the_place(rows, places):
    by_name = {place.name: place for place in places}
    kinds = set()
    for row in rows["validation"]:
        for kind, wording in {**WORDING, "distance": DISTANCE}.items():
            for template in wording.questions:
                pattern = re.escape(template).replace(r"\{a\}", r"(?P<a>\w+)").replace(r"\{b\}", r"(?P<b>\w+)")
                match = re.fullmatch(pattern, row["question"])
                if match is None:
                    continue
                kinds.add(kind)
                place, answer = by_name[match["a"]], row["answers"]["text"][0]
                if kind == "distance":
                    assert answer == f"{distance_km(place, by_name[match['b']]):,.0f}"
                else:
                    assert answer == place.value(kind)
    assert kinds == {*WORDING, "distance"}


def test_each_paragraph_names_three_to_five_places(rows):
    for row in rows["train"]:
        assert 3 <= len(set(re.findall(r"\w+", row["context"])) & set(NAMES)) <= 5


def test_places_of_the_splits_are_disjoint(rows):
    names = {split: set(re.findall(r"\b[A-Z]\w+\b", " ".join(r["context"] for r in rows[split]))) for split in rows}
    shared = names["train"] & names["validation"] & set(NAMES)
    assert not shared
    assert {split_of(place) for place in clean(table())} == {"train", "validation"}


def test_some_wordings_are_kept_for_validation(rows):
    def asked(split, template):
        pattern = re.escape(template).replace(r"\{a\}", r"\w+").replace(r"\{b\}", r"\w+")
        return any(re.fullmatch(pattern, row["question"]) for row in rows[split])

    for wording in (*WORDING.values(), DISTANCE):
        kept = wording.questions[-2:]
        assert not any(asked("train", template) for template in kept)
        assert any(asked("validation", template) for template in kept)


def test_generation_is_deterministic(rows, places):
    assert generate(places, "train") == rows["train"]
    assert len({row["id"] for row in rows["train"]}) == len(rows["train"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("asciiname", "Washington, D.C."),
        ("asciiname", "Nordia"),
        ("asciiname", "Smallville (historical)"),
        ("population", 0),
        ("elevation", float("nan")),
        ("elevation", -60.0),
        ("dem", -9999),
        ("state", None),
        ("latitude", 95.0),
        ("timezone", "America/Adak"),
    ],
)
def test_unusable_rows_are_left_out(column, value):
    frame = table()
    frame[column] = [value, *frame[column].iloc[1:]]
    assert len(clean(frame)) == len(frame) - 1


def test_distance_of_known_cities():
    def place(latitude, longitude):
        return Place("X", "Y", 100, 1, "Z", latitude, longitude)

    assert distance_km(place(0, 0), place(0, 90)) == pytest.approx(10007.5, abs=0.1)  # a quarter of the equator
    assert distance_km(place(40.0, -100.0), place(41.0, -100.0)) == pytest.approx(111.2, abs=0.1)


def test_the_task_reads_the_table_of_its_source(tmp_path):
    table().to_csv(tmp_path / "cities_us.csv.gz")
    splits = load_task("city_qa", {"source": str(tmp_path), "train_examples": 50, "eval_examples": 20}, "test").load()
    assert {name: len(split) for name, split in splits.items()} == {"train": 50, "validation": 20}

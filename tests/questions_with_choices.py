"""The small questions of the tests with wrong answers beside the right one, in the format of each task of the kind."""

import json
from pathlib import Path

DATA = Path(__file__).parent / "data" / "city_qa"
LETTERS = "ABCDE"


def _questions(split, count):
    """Paragraph, question, `count` choices of answers and the number of the right one."""
    rows = [json.loads(line) for line in (DATA / f"{split}.jsonl").read_text().splitlines()]
    answers = [row["answers"]["text"][0] for row in rows]
    for index, row in enumerate(rows):
        others = sorted(set(answers[:index] + answers[index + 1 :]) - {answers[index]})
        choices = [others[(index * 7 + i * 5) % len(others)] for i in range(count)]
        choices[index % count] = answers[index]
        yield row["id"], row["context"], row["question"], choices, index % count


def _commonsense_qa(split):
    for name, _, question, choices, right in _questions(split, 5):
        labelled = {"label": list(LETTERS), "text": choices}
        yield {"id": name, "question": question, "choices": labelled, "answerKey": LETTERS[right]}


def _race(split):
    for _, context, question, options, right in _questions(split, 4):
        row = {"example_id": "high1.txt", "article": context, "question": question, "options": options}
        yield {**row, "answer": LETTERS[right]}


def _winogrande(split):
    for _, _, question, (first, second), right in _questions(split, 2):
        row = {"sentence": f"{question} _ .", "option1": first, "option2": second}
        yield {**row, "answer": str(right + 1)}


def _own(split):
    for name, _, question, choices, right in _questions(split, 3):
        yield {"id": name, "question": question, "choices": choices, "label": right}


FORMATS = {"commonsense_qa": _commonsense_qa, "multiple_choice": _own, "race": _race, "winogrande": _winogrande}


def write(name, folder):
    """Both splits of a task in a folder."""
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in FORMATS[name](split)))
    return folder

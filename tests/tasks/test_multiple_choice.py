"""Multiple choice: sequences of each format token by token, hidden answers, ties, and what records say of collapse."""

import json
import string
from pathlib import Path

import pytest
import torch
from transformers import BertTokenizer, RobertaTokenizer

from obert.experiment.recipes import load_task
from obert.foundation.errors import UserError

FOX = {"question": "Where would I not want a fox?", "choices": ["hen house", "england"]}
SPACE = "Ġ"  # what stands for a space in byte-level BPE


@pytest.fixture(scope="module")
def bpe():
    """RoBERTa's kind of tokenizer: a token a byte, but for a space with Ian, and hen without one."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    merges = [(SPACE, "I"), ("ĠI", "a"), ("ĠIa", "n"), ("h", "e"), ("he", "n")]
    pieces = [*special, SPACE, *string.ascii_letters, *string.punctuation, *(a + b for a, b in merges)]
    return RobertaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges)


@pytest.fixture(scope="module")
def wordpiece():
    known = words("where would i not want a fox hen house england q ian dennis ##s left because he was tired")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *known]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=True)


def csqa_row(number, question=FOX["question"], choices=FOX["choices"], key="A"):
    labels = list("ABCDE")[: len(choices)]
    row = {"id": f"q{number}", "question": question, "question_concept": "fox", "answerKey": key}
    return {**row, "choices": {"label": labels, "text": list(choices)}}


def write(folder, split, rows):
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def task_on(name, folder, validation, train=None, **options):
    """A task on a folder with these rows of validation; training has others."""
    write(folder, "validation", validation)
    write(folder, "train", train or [{**row, "id": f"t{i}"} for i, row in enumerate(validation)])
    return load_task(name, {"source": str(folder), **options}, "the test")


def encoded(task, tokenizer):
    """The features of the first question of validation, and the rows of its tokens as text."""
    row = task.encode(task.load()["validation"], tokenizer)[0]
    return row, [tokenizer.convert_ids_to_tokens(tokens) for tokens in row["input_ids"]]


@pytest.fixture
def csqa(tmp_path):
    def make(validation=None, **options):
        train = [csqa_row(9, question="another question")]
        return task_on("commonsense_qa", tmp_path, validation or [csqa_row(0)], train, **options)

    return make


def wino_row(sentence, first, second, answer="1"):
    return {"sentence": sentence, "option1": first, "option2": second, "answer": answer}


@pytest.fixture
def winogrande(tmp_path):
    def make(*validation, **options):
        train = [wino_row("Nobody knows _ .", "Ian", "Dennis", answer) for answer in ("1", "2")]
        return task_on("winogrande", tmp_path, list(validation), train[:1], **options)

    return make


def race_row(question, options, answer="A", article="A  house\n is where he was."):
    return {"example_id": "high1.txt", "article": article, "question": question, "options": options, "answer": answer}


@pytest.fixture
def race(tmp_path):
    def make(*validation, **options):
        train = [race_row("Who left ?", ["Ian", "Dennis"], article="Another passage.")]
        return task_on("race", tmp_path, list(validation), train, **{"max_length": 128, **options})

    return make


def words(text):
    return text.split()


def characters(text):
    """Byte-level tokens of a text, a character each."""
    return list(text.replace(" ", SPACE))


def test_the_fox_in_the_format_of_smc_bench(csqa, bpe):
    """how-to-prune.md 3.3: one separator, prefixes with a space, and no space before `A:`."""
    row, (first, second) = encoded(csqa(), bpe)
    question = ["<s>", *characters("Q: W"), "he", *characters("re would"), "ĠI", *characters(" not want a fox?")]
    assert first == [*question, "</s>", *characters("A: "), "hen", *characters(" house"), "</s>"]
    assert second == [*question, "</s>", *characters("A: england"), "</s>"]
    assert (first.count("<s>"), first.count("</s>")) == (1, 2)
    assert row["length"] == max(len(first), len(second)) == len(first)
    assert row["attention_mask"] == [[1] * len(first), [1] * len(second)]
    assert "token_type_ids" not in row
    assert row["labels"] == 0


def test_the_fox_as_the_tokenizer_has_pairs(csqa, bpe):
    _, (first, _) = encoded(csqa(format="hf"), bpe)
    question = ["<s>", "W", "he", *characters("re would"), "ĠI", *characters(" not want a fox?")]
    assert first == [*question, "</s>", "</s>", "hen", *characters(" house"), "</s>"]


def test_the_fox_in_word_pieces(csqa, wordpiece):
    row, (first, _) = encoded(csqa(), wordpiece)
    question = words("[CLS] q : where would i not want a fox ? [SEP]")
    assert first == [*question, *words("a : hen house [SEP]")]
    assert row["token_type_ids"] == [[0] * 12 + [1] * 5, [0] * 12 + [1] * 4]
    row, (first, _) = encoded(csqa(format="hf"), wordpiece)
    assert first == words("[CLS] where would i not want a fox ? [SEP] hen house [SEP]")
    assert row["token_type_ids"][0] == [0] * 10 + [1] * 3


@pytest.mark.parametrize("format_", ["smc", "hf"])
def test_a_long_question_is_cut_and_its_choices_stay(csqa, wordpiece, format_):
    task = csqa([csqa_row(0, question="where " * 50)], max_length=20, format=format_)
    row, (first, second) = encoded(task, wordpiece)
    assert row["length"] == len(first) == len(second) == 20
    assert first[-3:] == words("hen house [SEP]") and second[-2:] == words("england [SEP]")
    _, (first, _) = encoded(csqa([csqa_row(0, choices=["hen " * 50, "fox"])], max_length=20, format=format_), wordpiece)
    assert len(first) <= 20 and "where" in first and first.count("hen") > 4


def test_each_options_own_tokens_are_masked(winogrande, bpe):
    """One mask for Ian, which is a token with its space, seven for Dennis; no `<s>`, one `</s>`."""
    row, (first, second) = encoded(winogrande(wino_row("He left as _ was ill.", "Ian", "Dennis", "2")), bpe)
    before, after = ["H", *characters("e left as")], [*characters(" was ill."), "</s>"]
    assert first == [*before, "<mask>", *after]
    assert second == [*before, *["<mask>"] * 7, *after]
    assert row["positions"] == [[len(before)], list(range(len(before), len(before) + 7))]
    targets = [bpe.convert_ids_to_tokens(tokens) for tokens in row["targets"]]
    assert targets == [["ĠIan"], characters(" Dennis")]
    assert row["labels"] == 1
    assert row["length"] == len(second)


def test_a_blank_without_a_space_before_it_has_an_option_without_one(winogrande, bpe):
    row, (first, _) = encoded(winogrande(wino_row("_ left (_).", "Ian", "Dennis")), bpe)
    assert first == ["<mask>"] * 3 + [*characters(" left (_)."), "</s>"]
    assert bpe.convert_ids_to_tokens(row["targets"][0]) == ["I", "a", "n"]


def test_white_space_before_a_blank_is_one_space(winogrande, bpe):
    _, (first, _) = encoded(winogrande(wino_row("He  _ .", "Ian", "Dennis")), bpe)
    assert first == ["H", "e", "<mask>", SPACE, ".", "</s>"]


def test_masks_in_word_pieces_with_and_without_special_tokens(winogrande, wordpiece):
    sentence = wino_row("he left because _ was tired", "Ian", "the Dennis's", "1")
    row, (first, second) = encoded(winogrande(sentence), wordpiece)
    assert first == words("he left because [MASK] was tired [SEP]")
    assert second == words("he left because [MASK] [MASK] [MASK] [MASK] was tired [SEP]")
    assert row["token_type_ids"] == [[0] * 7, [0] * 10]
    row, (first, _) = encoded(winogrande(sentence, format="hf"), wordpiece)
    assert first == words("[CLS] he left because [MASK] was tired [SEP]")
    assert row["positions"][0] == [4]


def test_a_new_head_reads_the_rest_of_the_sentence_with_the_option(winogrande, wordpiece):
    task = winogrande(wino_row("he left because _ was tired", "Ian", "Dennis"), scoring="head", format="hf")
    row, (first, second) = encoded(task, wordpiece)
    assert first == words("[CLS] he left because [SEP] ian was tired [SEP]")
    assert second == words("[CLS] he left because [SEP] dennis was tired [SEP]")
    assert "targets" not in row


def test_a_new_head_needs_a_first_token(winogrande):
    with pytest.raises(UserError, match="use format hf"):
        winogrande(wino_row("_", "Ian", "Dennis"), scoring="head")


def test_a_sentence_that_is_too_long_to_score_is_refused(winogrande, bpe):
    task = winogrande(wino_row("He left as _ was ill." * 4, "Ian", "Dennis"))
    with pytest.raises(UserError, match=r"max_length 64: question 'validation-0' takes \d+ tokens"):
        task.encode(task.load()["validation"], bpe)


def test_an_option_without_tokens_is_refused(winogrande, wordpiece):
    task = winogrande(wino_row("he left because _ was tired", "\u200b", "Dennis"))
    with pytest.raises(UserError, match="makes nothing of option"):
        task.encode(task.load()["validation"], wordpiece)


def test_training_examples_are_chosen_by_their_size(winogrande, tmp_path):
    write(tmp_path, "train_s", [wino_row(f"{i} _ .", "Ian", "Dennis") for i in range(5)])
    assert len(winogrande(wino_row("_ .", "a", "b"), train_split="train_s").load()["train"]) == 5
    with pytest.raises(UserError, match="no split 'train_m'"):
        winogrande(wino_row("_ .", "a", "b"), train_split="train_m").load()


def test_an_underscore_of_a_question_is_replaced_by_the_option(race, bpe):
    """how-to-prune.md 3.3: question with option first, a doubled separator, then the passage; white space collapsed."""
    row, (first, second) = encoded(race(race_row("He  was at _ .", ["a\thouse", "sea"], "B")), bpe)
    assert "".join(first).replace(SPACE, " ") == "<s>He was at a house .</s></s>A house is where he was.</s>"
    assert "".join(second).replace(SPACE, " ") == "<s>He was at sea .</s></s>A house is where he was.</s>"
    assert row["labels"] == 1


def test_without_an_underscore_the_option_stands_behind_the_question(race, wordpiece):
    row, (first, _) = encoded(race(race_row("Where was he ?", ["house", "england"])), wordpiece)
    assert first == words("[CLS] where was he ? house [SEP] [SEP] a house i ##s where he was . [SEP]")
    assert row["token_type_ids"][0] == [0] * 8 + [1] * 9
    _, (first, _) = encoded(race(race_row("Where was he ?", ["house", "england"]), format="hf"), wordpiece)
    assert first == words("[CLS] a house i ##s where he was . [SEP] where was he ? house [SEP]")


@pytest.mark.parametrize("format_", ["smc", "hf"])
def test_a_long_passage_is_cut(race, wordpiece, format_):
    article = "he was tired . " * 60
    _, (first, _) = encoded(race(race_row("Where ?", ["house", "fox"], article=article), format=format_), wordpiece)
    assert len(first) == 128
    assert [token for token in first if token in ("where", "?", "house")] == ["where", "?", "house"]


def test_questions_of_a_passage_stay_together(race):
    rows = [race_row(f"Where {i} ?", ["house", "fox"]) for i in range(3)]
    shared = [
        race_row("Who ?", ["Ian", "he"], article="a HOUSE is where he was."),
        race_row("Q", ["a", "b"], article="b"),
    ]
    task = race(*rows)
    write(Path(task.source), "train", shared)
    splits = task.load()
    assert splits["train"]["question"] == ["Q"]  # the other one's passage is in validation too
    assert len(set(task.units(splits["validation"]))) == 1
    assert list(splits["validation"]["id"]) == ["validation-0", "validation-1", "validation-2"]


HIDDEN = {
    "commonsense_qa": [csqa_row(0), csqa_row(1, key=""), csqa_row(2, key="")],
    "winogrande": [wino_row("_ .", "a", "b"), wino_row("_ ?", "a", "b", ""), wino_row("_ !", "a", "b", "")],
    "race": [race_row(q, ["a", "b"], answer) for q, answer in (("x", "A"), ("y", ""), ("z", ""))],
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_split_with_hidden_answers_is_refused_in_one_message(name, tmp_path):
    with pytest.raises(UserError, match="hides the answer, as test splits do") as caught:
        task_on(name, tmp_path, HIDDEN[name], HIDDEN[name][:1]).load()
    message = str(caught.value)
    assert "validation.jsonl, line 2" in message and "1 more row has it (line 3)" in message


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("commonsense_qa", {"answerKey": "F"}, "'F' is the label of no choice"),
        ("commonsense_qa", {"choices": ["a", "b"]}, "is a list"),
        ("commonsense_qa", {"choices": {"label": ["A", "A"], "text": ["a", "b"]}}, "not a label of its own"),
        ("commonsense_qa", {"choices": {"label": ["A"], "text": ["a"]}}, "has 1 entries"),
        ("commonsense_qa", {"question": " "}, "is blank"),
        ("winogrande", {"answer": "3"}, '\'3\' is neither. Allowed: "1" or "2"'),
        ("winogrande", {"sentence": "no"}, "has no blank"),
        ("race", {"answer": "E"}, "beyond the 2 choices"),
        ("race", {"options": ["a"]}, "has 1 entries"),
    ],
)
def test_rows_that_cannot_be_used_are_named(name, change, message, tmp_path):
    row = HIDDEN[name][0]
    with pytest.raises(UserError) as caught:
        task_on(name, tmp_path, [{**row, **change}], [row]).load()
    assert message in str(caught.value) and "validation.jsonl, line 1" in str(caught.value)


def test_different_numbers_of_choices_are_refused(csqa, wordpiece):
    task = csqa([csqa_row(0), csqa_row(1, choices=["a", "b", "c"])])
    with pytest.raises(UserError, match="question 'q1' has 3 choices, and 'q0' has 2"):
        task.encode(task.load()["validation"], wordpiece)


def outcome(task, tokenizer, scores):
    """Scores, predictions and remarks for these scores of the choices."""
    examples = task.load()["validation"]
    features = task.encode(examples, tokenizer)
    predictions = task.predict((torch.tensor(scores),), features, examples)
    accuracy = task.score(predictions, examples)["accuracy"]
    return accuracy, predictions, task.remarks(predictions, examples)


def test_ties_go_to_the_first_choice(csqa, wordpiece):
    task = csqa([csqa_row(i, key=key, question=f"where {i}") for i, key in enumerate("ABBA")])
    accuracy, predictions, remarks = outcome(task, wordpiece, [[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.25]])
    assert (accuracy.value, accuracy.count) == (75.0, 4)
    assert [row["score"] for row in predictions] == [100.0, 0.0, 100.0, 100.0]
    assert [row["scores"] for row in predictions][3] == [0.5, 0.25]
    assert remarks == {"ties": 2, "majority_rate": 50.0, "constant_rate": 75.0, "collapsed": True}


def test_ties_of_masked_options_are_right(winogrande, wordpiece):
    rows = [wino_row(f"{i} _ .", "Ian", "Dennis", answer) for i, answer in enumerate("1221")]
    accuracy, _, remarks = outcome(
        winogrande(*rows), wordpiece, [[-1.0, -1.0], [-1.0, -1.0], [-2.0, -1.0], [-3.0, -2.0]]
    )
    assert accuracy.value == 75.0 and remarks["ties"] == 2


def test_a_model_at_chance_is_called_collapsed(winogrande, wordpiece):
    """Each choice is right in 8 of 16 questions, so chance is 50 %, one standard error 12.5 points."""
    rows = [wino_row(f"{i} _ .", "Ian", "Dennis", "12"[i % 2]) for i in range(16)]
    for right, collapsed in ((10, True), (11, False), (2, True)):
        scores = [[1.0, 0.0] if (i % 2 == 0) == (i < right) else [0.0, 1.0] for i in range(16)]
        assert outcome(winogrande(*rows), wordpiece, scores)[2]["collapsed"] is collapsed

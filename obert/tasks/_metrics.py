"""Metrics in percent that need no network: `evaluate.load` would fetch its scripts from a hub."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import datasets
import evaluate

_DESCRIPTION = "Computed inside this package."


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, English articles and extra white space, as the SQuAD v1.1 script does it."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _exact_match(prediction: str, reference: str) -> float:
    return float(normalise_answer(prediction) == normalise_answer(reference))


def _f1(prediction: str, reference: str) -> float:
    given, expected = normalise_answer(prediction).split(), normalise_answer(reference).split()
    shared = sum((Counter(given) & Counter(expected)).values())
    return 2 * shared / (len(given) + len(expected)) if shared else 0.0


def _best(compare: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    return 100 * max(compare(prediction, reference) for reference in references)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """100 if the answer equals one of the references after normalisation, else 0."""
    return _best(_exact_match, prediction, references)


def f1(prediction: str, references: Sequence[str]) -> float:
    """Overlap of words with the closest reference: harmonic mean of precision and recall, in percent.

    As in the official script, two empty answers have nothing in common and score 0.
    """
    return _best(_f1, prediction, references)


def _accepted(references: Sequence[str]) -> list[str]:
    """The references that say something; a question without any has the empty answer."""
    return [reference for reference in references if normalise_answer(reference)] or [""]


def exact_match_v2(prediction: str, references: Sequence[str]) -> float:
    """As `exact_match`, by the script of SQuAD v2.0: the empty answer is right where there is no reference."""
    return exact_match(prediction, _accepted(references))


def f1_v2(prediction: str, references: Sequence[str]) -> float:
    """As `f1`, by the script of SQuAD v2.0: an empty answer has 100 where there is no reference, else 0."""
    if not normalise_answer(prediction):
        return exact_match_v2(prediction, references)
    return f1(prediction, _accepted(references))


class _Offline(evaluate.Metric):
    """A metric that keeps its inputs in memory and not in the user's cache."""

    def __init__(self, **options):
        super().__init__(keep_in_memory=True, **options)


class Accuracy(_Offline):
    """Percentage of labels that are right: `compute(predictions=[int], references=[int])`."""

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            features=datasets.Features({"predictions": label, "references": label}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        right = sum(p == r for p, r in zip(predictions, references, strict=True))
        return {"accuracy": 100 * right / len(predictions)}


class AccuracyAndF1(Accuracy):
    """Accuracy, and F1 of label 1: the harmonic mean of its precision and recall, in percent."""

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        both = sum(p == r == 1 for p, r in zip(predictions, references, strict=True))
        either = sum(p == 1 for p in predictions) + sum(r == 1 for r in references)
        accuracy = super()._compute(predictions, references)
        return {**accuracy, "f1": 200 * both / either if either else 0.0}


class SquadV1(_Offline):
    """Exact match and F1 of SQuAD v1.1 (Rajpurkar et al. 2016), in percent, averaged over the examples.

    `compute(predictions=[str], references=[[str, ...]])`, with all accepted answers of each example.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            features=datasets.Features({"predictions": text, "references": datasets.List(text)}),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        pairs = list(zip(predictions, references, strict=True))
        return {
            "exact_match": sum(exact_match(p, r) for p, r in pairs) / len(pairs),
            "f1": sum(f1(p, r) for p, r in pairs) / len(pairs),
        }

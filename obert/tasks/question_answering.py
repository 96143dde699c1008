"""Question answering on own data: a paragraph, a question, and answers that stand in the paragraph."""

from pydantic import Field, model_validator

from obert.tasks._own_columns import SOURCE, check_distinct
from obert.tasks._unanswerable import Unanswerable


class OwnQuestionAnswering(Unanswerable):
    """SQuAD v1.1's scores; with `unanswerable` those of SQuAD v2.0, and a threshold of no answer is found."""

    source: str = Field(description=SOURCE)
    context: str = Field("context", description="the column of the paragraph")
    question: str = Field("question", description="the column of the question")
    answers: str = Field("answers", description="the column of the answers, as SQuAD has them, or one answer as text")
    unanswerable: bool = Field(False, description="whether answers may be empty")

    @model_validator(mode="after")
    def _distinct(self):
        check_distinct((*self.columns, "id"))
        return self

    @property
    def columns(self) -> tuple[str, str, str]:
        return self.context, self.question, self.answers

    @property
    def may_lack_answers(self) -> bool:
        return self.unanswerable

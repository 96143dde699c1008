"""SQuAD v1.1: answers as spans of Wikipedia paragraphs (Rajpurkar et al. 2016)."""

from pydantic import Field

from obert.tasks._question_answering import QuestionAnswering


class Squad(QuestionAnswering):
    """Lengths as in the BERT recipe: 384 tokens, 128 of them shared."""

    source: str = Field("rajpurkar/squad", description="a Hugging Face Hub name, or a local directory")
    max_length: int = Field(384, gt=8, description="tokens of a feature, special tokens included")
    doc_stride: int = Field(128, ge=0, description="tokens that neighbouring features of one paragraph share")

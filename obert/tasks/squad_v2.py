"""SQuAD v2.0: SQuAD v1.1, and as many questions that their paragraph does not answer (Rajpurkar et al. 2018)."""

from pydantic import Field

from obert.tasks._unanswerable import Unanswerable


class SquadV2(Unanswerable):
    """Lengths as in the BERT recipe: 384 tokens, 128 of them shared."""

    source: str = Field("rajpurkar/squad_v2", description="a Hugging Face Hub name, or a local directory")
    max_length: int = Field(384, gt=8, description="tokens of a feature, special tokens included")
    doc_stride: int = Field(128, ge=0, description="tokens that neighbouring features of one paragraph share")

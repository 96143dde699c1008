"""What all schemas of configurations share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

DECIMALS = 4  # of a sparsity: what `:g` prints of it is then all of it, so that one value has one name


def _named_exactly(sparsity: float) -> float:
    if round(sparsity, DECIMALS) != sparsity:
        raise ValueError(f"folders and the command line name a sparsity by at most {DECIMALS} decimals: round it")
    return abs(sparsity)  # -0.0 has another name than 0.0


Fraction = Annotated[float, Field(ge=0, lt=1)]
Sparsity = Annotated[Fraction, AfterValidator(_named_exactly)]  # of runs
Rate = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


class Strict(BaseModel):
    """Unknown keys are errors at every level."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

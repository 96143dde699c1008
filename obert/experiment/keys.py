"""The identity of a run inside an experiment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


def lineage_of(label: str) -> tuple[str, ...]:
    """The recipes that a label names: a model's own, then that of the model it started from, and so on."""
    return tuple(label.split("@"))


@dataclass(frozen=True, order=True)
class RunKey:
    """Identity of a run inside an experiment. `method` and `sparsity` are None for what is not pruned.

    Attributes:
        lineage: the run's own recipe, then that of the run whose model it starts from, and so on. May be given as a
            label (`<recipe>@<recipe>`), which is how it is printed and how records hold it.
    """

    stage: str
    task: str
    lineage: tuple[str, ...]
    seed: int
    method: str | None = None
    sparsity: float | None = None

    def __post_init__(self):
        if isinstance(self.lineage, str):
            object.__setattr__(self, "lineage", lineage_of(self.lineage))

    @property
    def recipe(self) -> str:
        """The lineage as a label."""
        return "@".join(self.lineage)

    @property
    def origin(self) -> tuple[str, ...]:
        """The lineage of the run whose model this one starts from, empty for the experiment's own model."""
        return self.lineage[1:]

    def at(self, stage: str) -> RunKey:
        """The key of the same model at another stage."""
        return replace(self, stage=stage)

    @property
    def variant(self) -> str:
        """`<recipe>/<method>-<sparsity>`, or `<recipe>/dense`."""
        return f"{self.recipe}/{'dense' if self.method is None else f'{self.method}-{self.sparsity:g}'}"

    @property
    def path(self) -> Path:
        """Folder below the experiment's runs: `<stage>/<task>/<recipe>/<method>-<sparsity>/seed<k>`."""
        return Path(self.stage, self.task, self.variant, f"seed{self.seed}")

    @property
    def arguments(self) -> str:
        """The command-line arguments that name the run."""
        pruned = "" if self.method is None else f" --method {self.method} --sparsity {self.sparsity:g}"
        return f"--task {self.task} --recipe {self.recipe}{pruned} --seed {self.seed}"

    def as_dict(self) -> dict[str, Any]:
        """What records and specifications hold."""
        return {
            "stage": self.stage,
            "task": self.task,
            "recipe": self.recipe,
            "seed": self.seed,
            "method": self.method,
            "sparsity": self.sparsity,
        }

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        fields = {
            "stage": core_schema.str_schema(),
            "task": core_schema.str_schema(),
            "recipe": core_schema.str_schema(),
            "seed": core_schema.int_schema(),
            "method": core_schema.nullable_schema(core_schema.str_schema()),
            "sparsity": core_schema.nullable_schema(core_schema.float_schema()),
        }
        as_read = core_schema.typed_dict_schema(
            {
                name: core_schema.typed_dict_field(schema, required=name not in ("method", "sparsity"))
                for name, schema in fields.items()
            },
            extra_behavior="forbid",
        )
        from_dict = core_schema.no_info_after_validator_function(
            lambda content: cls(lineage=content["recipe"], **{n: v for n, v in content.items() if n != "recipe"}),
            as_read,
        )
        return core_schema.union_schema(
            [core_schema.is_instance_schema(cls), from_dict],
            serialization=core_schema.plain_serializer_function_ser_schema(cls.as_dict),
        )

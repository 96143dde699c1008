"""The identity of a run inside an experiment."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class RunKey:
    """Identity of a run inside an experiment. `method` and `sparsity` are None for what is not pruned.

    `recipe` is a recipe's file, or `<file>@<recipe>` with the recipe of the run whose model it starts from.
    """

    stage: str
    task: str
    recipe: str
    seed: int
    method: str | None = None
    sparsity: float | None = None

    @property
    def variant(self) -> str:
        """`<recipe>/<method>-<sparsity>`, or `<recipe>/dense`."""
        return f"{self.recipe}/{'dense' if self.method is None else f'{self.method}-{self.sparsity:g}'}"

    @property
    def upstream(self) -> str | None:
        """The recipe of the run whose model this one starts from."""
        return self.recipe.partition("@")[2] or None

    @property
    def path(self) -> Path:
        """Folder below the experiment's runs: `<stage>/<task>/<recipe>/<method>-<sparsity>/seed<k>`."""
        return Path(self.stage, self.task, self.variant, f"seed{self.seed}")

    def at(self, stage: str) -> "RunKey":
        """The key of the same model at another stage."""
        return RunKey(stage, self.task, self.recipe, self.seed, self.method, self.sparsity)


def arguments(key: RunKey) -> str:
    """The command-line arguments that name a run."""
    pruned = "" if key.method is None else f" --method {key.method} --sparsity {key.sparsity:g}"
    return f"--task {key.task} --recipe {key.recipe}{pruned} --seed {key.seed}"

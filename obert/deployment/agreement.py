"""Whether engines put out the same for one model, found before any of them is timed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from obert.deployment.latency import random_inputs
from obert.deployment.parity import PARITY_TOLERANCE, QUANTIZED_PARITY_TOLERANCE
from obert.engines import Engine, EngineError


@dataclass(frozen=True)
class Expected:
    """What a model puts out for two batches of random tokens, the second with padding.

    Attributes:
        batches: arrays [sequences, tokens] by input.
        outputs: of each batch.
        label: of the engine that made them.
        quantized: whether the model has 8-bit weights: then the mean difference is judged, not the largest.
    """

    batches: tuple[dict[str, np.ndarray], ...]
    outputs: tuple[list[np.ndarray], ...]
    label: str
    quantized: bool

    @classmethod
    def of(cls, engine: Engine, vocabulary: int, shape: tuple[int, int], quantized: bool) -> Expected:
        """Run an engine on batches of that shape, which some models are limited to."""
        whole, padded = (random_inputs(vocabulary, *shape, seed=seed) for seed in (0, 1))
        padded["attention_mask"][-1, (shape[1] + 1) // 2 :] = 0
        batches = (whole, padded)
        return cls(batches, tuple(engine.run(batch) for batch in batches), engine.label, quantized)

    def require(self, engine: Engine) -> None:
        """Compare an engine's outputs.

        An output whose first axes are those of the tokens means nothing at padding, and is not compared there.

        Raises:
            EngineError: they differ by more than float32, or rounding to 8 bits, accounts for.
        """
        differences, largest = [], 1.0
        for batch, expected in zip(self.batches, self.outputs, strict=True):
            found = engine.run(batch)
            if [output.shape for output in found] != [output.shape for output in expected]:
                raise EngineError(f"{engine.label} puts out other shapes than {self.label}")
            real = batch["attention_mask"] == 1
            for output, reference in zip(found, expected, strict=True):
                of_tokens = output.shape[:2] == real.shape
                output, reference = (x[real] if of_tokens else x for x in (output, reference))
                differences.append(np.abs(output - reference).ravel())
                largest = max(largest, float(np.abs(reference).max()))
        everything = np.concatenate(differences)
        kind, value = "up to", float(everything.max())
        tolerance = max(PARITY_TOLERANCE, engine.tolerance) * largest  # float32 has digits, not decimals
        if self.quantized:
            kind, value, tolerance = "a mean of", float(everything.mean()), QUANTIZED_PARITY_TOLERANCE
        if not value <= tolerance:
            raise EngineError(
                f"{engine.label}'s outputs differ from {self.label}'s by {kind} {value:.3g}; allowed is {tolerance:.3g}"
            )

"""How soft distributions are at a temperature: their entropy, and the probability of the likeliest outcome."""

import numpy as np
from numpy.typing import ArrayLike

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def softened(logits: ArrayLike, temperature: float) -> np.ndarray:
    """The softmax over the last axis of logits divided by a temperature (Hinton et al. 2015, section 2), [..., n]."""
    scaled = np.asarray(logits, float) / temperature
    raised = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def relative_entropy(probabilities: np.ndarray) -> np.ndarray:
    """The entropy as a share of the largest that n outcomes can have, ln(n), [...]; 0 for a single outcome.

    0 is a one-hot distribution, 1 the uniform one.

    Args:
        probabilities: [..., n].
    """
    logarithms = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    entropy = -(probabilities * logarithms).sum(axis=-1) + 0.0  # no negative zero
    return entropy / max(np.log(probabilities.shape[-1]), np.finfo(float).tiny)


def mean_and_quantiles(values: ArrayLike) -> dict[str, float]:
    """The mean, and the QUANTILES as `q05` and so on."""
    quantiles = zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    return {"mean": float(np.mean(values))} | {f"q{100 * share:02.0f}": float(value) for share, value in quantiles}

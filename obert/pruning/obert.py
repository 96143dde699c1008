"""The Optimal BERT Surgeon (Kurtic et al. 2022, arXiv 2203.07259)."""

from typing import ClassVar

from obert.pruning.shared.block_fisher import BlockFisherMethod
from obert.second_order.solvers import Solver


class OptimalBertSurgeon(BlockFisherMethod):
    """Second-order scores and updates from a Fisher in small blocks (paper, section 3).

    Score of a group Q: 1/2 w_Q' (F^-1[Q, Q])^-1 w_Q, eq. 4. Update: -F^-1[:, Q] (F^-1[Q, Q])^-1 w_Q, eq. 3. With solver
    `independent` the groups' own updates are summed, which neglects their correlation as the paper and its code do;
    `joint` and `greedy` do not. The default, `greedy`, is not the paper's but the idea of CAP (Kuznedelev et al. 2023,
    arXiv 2210.09223); see `obert/second_order/solvers.py`.
    """

    small_settings: ClassVar = {
        "num_gradients": 32,
        "gradients": "per_example",
        "gradient_batch_size": 8,
        "fisher_block_size": 12,
    }

    solver: Solver = "greedy"

"""What every extension must keep to, as checks that any package can run on its own extensions.

from obert.contracts import check_method

def test_my_method_keeps_the_contract():
    check_method(MyMethod)
"""

from obert.contracts.broken import ContractBroken
from obert.contracts.methods import METHOD_CHECKS, check_method

__all__ = ["METHOD_CHECKS", "ContractBroken", "check_method"]

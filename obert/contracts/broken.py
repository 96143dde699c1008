"""How a contract says that it is broken."""


class ContractBroken(AssertionError):
    """An extension does not keep its contract; the text says what was found."""


def hold(condition: bool, message: str) -> None:
    """Raise ContractBroken with a message unless the condition holds. `assert` would be silent under `python -O`."""
    if not condition:
        raise ContractBroken(message)

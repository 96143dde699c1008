"""What the module is for."""
# ruff: noqa
# fmt: off

from __future__ import annotations

import asyncio
from dataclasses import dataclass as record


@record(frozen=True)
class Everything:
    """What the class is for."""

    field: int = 0xFF  # a remark
    """Documents a field."""
    name: str = 'single'


def compute(first, second=2, /, *rest, flag: bool = False, width=10, **options: int) -> dict:
    """What the function is for."""
    global counter
    counter = first * 2 + 1
    text = f"a{first}" 'b' f"{second!r:>{width}}"
    text += f"{counter=}" f"{first:a{width}b{width}}" rf"\d{second}" f"{{{flag}}}" f"\N{DIGIT ONE}ß𝕏\U0001fae8"
    text += "joined " "string" f"without a field" u"kind"
    data = [b"\x00bytes", 1e999, 1_000.5, 3j, -1, ..., 'single' if not flag else None, *rest]
    found = {key: [x for x in range(key) if x % 2 if x] for key in (1, 2)}
    part = lambda a, *b, c=1: (yield a[1:, ::2, b])
    if (n := len(data)) > 1 >= -n:
        data[0] @= ~n << 1 | n // 3
    if flag:
        pass
    else:
        raise ValueError(text) from None
    try:
        assert n, text
    except* ValueError as error:
        print(error)
    else:
        del (first, second)
    finally:
        while True:
            break
    match data:
        case [Everything(field=0), *_] | {"key": 1}:
            return found
        case -1 | 1+2j | "x" as value if value:
            return {}
        case None:
            return {**options, 'single': None}
    with open(text) as one, open(text) as (two, three):
        return part


async def wait(*, required, default=None):
    async with required as a:
        async for b in a:
            await asyncio.sleep(0)
    return {x async for x in required}

"""Decoded baskets are cached, if they are small."""

from __future__ import annotations

import orjson

from shared.domain.definitions.basket import GRAPH, Basket, BasketStep
from shared.store.executions.documents import _decode_basket


def stored(literals: int) -> bytes:
    step = BasketStep("a", "a", input={"x": [[] for _ in range(literals)]})
    return orjson.dumps(Basket("b", GRAPH, (step,)))


def test_a_large_basket_is_decoded_each_time_and_not_cached() -> None:
    small, large = stored(10), stored(100_000)
    assert _decode_basket(small) is _decode_basket(small)
    assert _decode_basket(large) == _decode_basket(large)
    assert _decode_basket(large) is not _decode_basket(large)

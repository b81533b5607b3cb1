"""What a client's route calls remember: the same as without memory, only sooner."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import ENGINE, InvalidValue, Origin, RouteMemory, RouteRequest, Secret, encode_route
from vastroute.urls import split_url


class TestAddresses:
    def test_an_address_is_what_it_is_without_memory(self) -> None:
        memory = RouteMemory(most=2)
        for number in (1, 2, 1, 3, 1, 4, 1):
            url = f"https://worker-{number}.example:8000/base"
            assert memory.split(url) == split_url(url)

    def test_the_same_address_gives_the_same_origin(self) -> None:
        memory = RouteMemory()
        first, _ = memory.split("https://worker.example")
        assert memory.split("https://worker.example")[0] is first

    def test_a_long_address_is_not_held(self) -> None:
        memory, longest = RouteMemory(), "https://worker.example/".ljust(512, "a")
        assert memory.split(longest)[0] is memory.split(longest)[0]
        assert memory.split(longest + "a") == split_url(longest + "a")
        assert memory.split(longest + "a")[0] is not memory.split(longest + "a")[0]

    def test_what_is_refused_is_refused_every_time(self) -> None:
        memory = RouteMemory()
        for _ in range(2):
            with pytest.raises(InvalidValue, match="it holds credentials"):
                memory.split("https://user:pass@worker.example")

    @pytest.mark.parametrize("most", [0, -1, True, 1.5, "64", None])
    def test_it_holds_at_least_one(self, most: object) -> None:
        with pytest.raises(InvalidValue, match="most must be a whole number of at least 1"):
            RouteMemory(most=most)  # type: ignore[arg-type]


class TestFirstAsks:
    REQUESTS = (
        RouteRequest(endpoint="demo", cost=100),
        RouteRequest(endpoint="demo", cost=100.0),
        RouteRequest(endpoint="other", replay_timeout=3.5),
        RouteRequest(endpoint="demo", extra={"latency": 1}),
        RouteRequest(endpoint="demo", request_idx=7),
    )
    KEYS = (Secret("a-key"), Secret("b-key"), Secret("a-key"))
    ENGINES = (ENGINE, Origin.parse("https://engine.example"))

    @given(
        asks=st.lists(
            st.tuples(
                st.sampled_from(REQUESTS), st.sampled_from(KEYS), st.sampled_from(ENGINES), st.booleans(), st.booleans()
            )
        ),
        most=st.integers(1, 5),
    )
    def test_an_ask_is_what_it_is_without_memory(self, asks: list[Any], most: int) -> None:
        memory = RouteMemory(most=most)
        for known, key, engine, key_in_body, anew in asks:
            request = attrs.evolve(known) if anew else known
            ask = memory.first_ask(request, key=key, engine=engine, key_in_body=key_in_body)
            assert ask == encode_route(request, key=key, engine=engine, key_in_body=key_in_body)

    def test_the_same_request_gives_the_same_ask(self) -> None:
        memory, request, key = RouteMemory(), self.REQUESTS[0], self.KEYS[0]
        asks = [memory.first_ask(request, key=key, engine=ENGINE, key_in_body=False) for _ in range(2)]
        assert asks[0] is asks[1]

    def test_no_key_shows(self) -> None:
        memory = RouteMemory()
        memory.first_ask(self.REQUESTS[0], key=Secret("canary"), engine=ENGINE, key_in_body=True)
        assert "canary" not in repr(memory)

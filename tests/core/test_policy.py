"""Limits and pauses: bounds that hold for every policy that is taken, and a worst case that is always a number."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import InvalidValue, Limits, Pause, RetryPolicy, WorkPolicy, WorstCase

DRAWS = st.floats(0, 1, exclude_max=True)
POSITIVE = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False) | st.integers(1, 10**300)
NOT_POSITIVE: list[Any] = [0, -1, -0.5, math.nan, math.inf, -math.inf, 10**400, True, False, None, "1", 1j, [1]]
NOT_COUNTS: list[Any] = [-1, 1.0, 0.5, math.nan, math.inf, True, False, None, "1", [1]]
EVERY = [Pause, RetryPolicy, WorkPolicy, Limits]


@st.composite
def pauses(draw: st.DrawFn, sizes: st.SearchStrategy[float] = POSITIVE) -> Pause:
    low, high = sorted([draw(sizes), draw(sizes)])
    return Pause(first=draw(sizes), factor=draw(sizes.filter(lambda size: size >= 1)), cap=high, floor=low)


def validated(kind: type) -> list[tuple[type, attrs.Attribute[Any], list[Any]]]:
    """The fields of `kind` that hold a number, with what each must refuse."""
    numbers = [each for each in attrs.fields(kind) if isinstance(each.default, int | float)]
    return [(kind, each, NOT_COUNTS if each.type == "int" else NOT_POSITIVE) for each in numbers]


class TestFields:
    @pytest.mark.parametrize(
        ("kind", "field", "wrong"),
        [pytest.param(*row, id=f"{row[0].__name__}.{row[1].name}") for kind in EVERY for row in validated(kind)],
    )
    def test_a_wrong_number_is_refused_by_name(self, kind: Any, field: attrs.Attribute[Any], wrong: list[Any]) -> None:
        for value in wrong:
            with pytest.raises(InvalidValue, match=f"^{field.name} must be a"):
                kind(**{field.name: value})

    @pytest.mark.parametrize("kind", EVERY)
    def test_every_default_is_finite(self, kind: Any) -> None:
        policy = kind()
        numbers = [value for value in attrs.astuple(policy) if isinstance(value, int | float)]
        assert len(numbers) >= 4
        assert all(math.isfinite(number) and number > 0 for number in numbers)
        assert policy == kind()
        assert hash(policy) == hash(kind())
        with pytest.raises(TypeError):
            kind(1)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(policy, attrs.fields(kind)[0].name, 1)

    @pytest.mark.parametrize(
        ("kind", "defaults"),
        [
            (Pause, {"first": 1.0, "factor": 2.0, "cap": 5.0, "floor": 0.25}),
            (
                RetryPolicy,
                {
                    "total": 900.0,
                    "ask_limit": 10.0,
                    "max_polls": 1000,
                    "max_retries": 12,
                    "poll_pause": Pause(first=1.0, factor=1.5, cap=5.0, floor=0.5),
                    "retry_pause": Pause(first=0.5, factor=2.0, cap=20.0, floor=0.25),
                    "retry_after_cap": 60.0,
                    "first_ask_repeats": 1,
                    "max_reroutes": 5,
                    "stop_statuses": frozenset({"stopped", "endpoint stopped"}),
                },
            ),
            (
                WorkPolicy,
                {
                    "waiting": 900.0,
                    "connecting": 10.0,
                    "first_byte": 600.0,
                    "silence": 120.0,
                    "working": 600.0,
                    "max_body": 268_435_456,
                },
            ),
            (
                Limits,
                {
                    "max_head": 16_384,
                    "max_headers": 100,
                    "max_body": 65_536,
                    "max_informational": 8,
                    "max_depth": 64,
                },
            ),
        ],
    )
    def test_the_defaults_are_promises(self, kind: Any, defaults: dict[str, Any]) -> None:
        assert attrs.asdict(kind(), recurse=False) == defaults

    @pytest.mark.parametrize("kind", [RetryPolicy, Limits, WorkPolicy])
    def test_a_count_may_be_0(self, kind: Any) -> None:
        counts = [each.name for each in attrs.fields(kind) if each.type == "int"]
        assert all(getattr(kind(**{name: 0}), name) == 0 for name in counts)
        assert counts

    @pytest.mark.parametrize("name", ["poll_pause", "retry_pause"])
    @pytest.mark.parametrize("wrong", [None, 2.0, "1s", {"first": 1.0}, Pause])
    def test_a_pause_is_a_pause(self, name: str, wrong: object) -> None:
        with pytest.raises(InvalidValue, match=f"{name} must be a Pause"):
            RetryPolicy(**{name: wrong})  # type: ignore[arg-type]  # what is tested

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ([" Stopped ", "PAUSED", "stopped"], {"stopped", "paused"}),
            ({"STRASSE": 1, "Straße": 2}, {"strasse"}),
            (iter(["x"]), {"x"}),
            ((), set()),
        ],
    )
    def test_stop_statuses_are_compared_without_case(self, given: Any, kept: set[str]) -> None:
        assert RetryPolicy(stop_statuses=given).stop_statuses == kept

    @pytest.mark.parametrize("wrong", ["stopped", None, 5, [5], ["stopped", None], [b"stopped"]])
    def test_stop_statuses_are_texts(self, wrong: Any) -> None:
        with pytest.raises(InvalidValue, match="stop_statuses must be a collection of texts"):
            RetryPolicy(stop_statuses=wrong)


class TestPause:
    @pytest.mark.parametrize(
        ("pause", "number", "draw", "seconds"),
        [
            (Pause(), 1, 0.0, 0.5),
            (Pause(), 1, 0.5, 0.75),
            (Pause(), 2, 0.0, 1.0),
            (Pause(), 3, 0.5, 3.0),
            (Pause(), 4, 0.0, 2.5),
            (Pause(), 10**9, 0.0, 2.5),
            (Pause(first=0.1, floor=0.25), 1, 0.9, 0.25),
            (Pause(first=9.0, cap=5.0), 1, 0.0, 2.5),
            (Pause(factor=1.0), 10**9, 0.0, 0.5),
            (Pause(factor=1e300), 3, 0.0, 2.5),
            (Pause(factor=10**300), 10**9, 0.0, 2.5),
            (Pause(first=1.0, factor=1.01, cap=5.0), 100, 0.0, 1.01**99 / 2),
            (Pause(first=1.0, factor=1.01, cap=5.0), 200, 0.0, 2.5),
        ],
    )
    def test_examples(self, pause: Pause, number: int, draw: float, seconds: float) -> None:
        assert pause.seconds(number, draw) == pytest.approx(seconds)

    @given(pauses(), st.integers(1, 10**9), DRAWS)
    def test_never_below_the_floor_nor_above_the_cap(self, pause: Pause, number: int, draw: float) -> None:
        seconds = pause.seconds(number, draw)
        assert pause.least == pause.floor <= seconds <= pause.cap

    @given(pauses(), st.integers(1, 3000), DRAWS)
    def test_never_shrinks_from_one_repetition_to_the_next(self, pause: Pause, number: int, draw: float) -> None:
        assert pause.seconds(number, draw) <= pause.seconds(number + 1, draw)

    @given(pauses(), st.integers(1, 100), DRAWS, DRAWS)
    def test_grows_with_the_draw_and_spreads_over_a_half(
        self, pause: Pause, number: int, one: float, two: float
    ) -> None:
        low, high = sorted([one, two])
        assert pause.seconds(number, low) <= pause.seconds(number, high)
        assert pause.seconds(number, high) <= max(pause.floor, 2 * pause.seconds(number, low))

    @given(pauses(st.floats(0.01, 100)), DRAWS)
    def test_comes_near_the_cap_in_the_end(self, pause: Pause, draw: float) -> None:
        last = pause.seconds(10**9, draw)
        whole = pause.cap if pause.factor > 1.001 else min(pause.first, pause.cap)
        assert last >= min(whole / 2, pause.cap) or last == pause.floor

    @pytest.mark.parametrize("wrong", [{"factor": 0.99}, {"cap": 1.0, "floor": 1.01}, {"cap": 0.2}])
    def test_what_would_not_be_one(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(InvalidValue, match="a factor of at least 1 and a cap not below its floor"):
            Pause(**wrong)


class TestWorstCase:
    @pytest.mark.parametrize(
        ("policy", "worst"),
        [
            ({}, WorstCase(seconds=900.0, asks=2036)),
            ({"max_polls": 0, "max_retries": 0, "max_reroutes": 0}, WorstCase(seconds=900.0, asks=2)),
            ({"max_polls": 5, "max_retries": 3, "max_reroutes": 2}, WorstCase(seconds=900.0, asks=22)),
            ({"total": 10}, WorstCase(seconds=10, asks=82)),
            ({"total": 0.2}, WorstCase(seconds=0.2, asks=2)),
            ({"total": 10, "retry_pause": Pause(floor=1.0)}, WorstCase(seconds=10, asks=42)),
        ],
    )
    def test_examples(self, policy: dict[str, Any], worst: WorstCase) -> None:
        assert RetryPolicy(**policy).worst_case() == worst

    @given(POSITIVE, pauses(), pauses(), st.integers(0, 10**400), st.integers(0, 9), st.integers(0, 9))
    def test_is_a_number_for_every_policy(
        self, total: float, poll: Pause, retry: Pause, polls: int, retries: int, reroutes: int
    ) -> None:
        policy = RetryPolicy(
            total=total,
            poll_pause=poll,
            retry_pause=retry,
            max_polls=polls,
            max_retries=retries,
            max_reroutes=reroutes,
        )
        worst = policy.worst_case()
        assert type(worst.asks) is int
        assert 2 <= worst.asks <= 2 * (1 + polls + retries + reroutes)
        assert worst.seconds == total
        more = attrs.evolve(policy, max_retries=retries + 1).worst_case()
        assert worst.asks <= more.asks

"""Where a test fails its report tells the conversation, without secrets; where none fails nothing is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from .inner import run

pytest_plugins = ["pytester"]

SHOWN = Path(__file__).parents[2] / "docs" / "example" / "conversation.txt"
TITLE = "vastroute conversation"
SECRETS = ("test-endpoint-key", "a prompt of ours", "signature", "Bearer")


def _section(result: pytest.RunResult) -> list[str]:
    """The lines below the title, to the end of the one failure."""
    lines = [line.rstrip() for line in result.stdout.lines]
    begin = next(number for number, line in enumerate(lines, 1) if TITLE in line)
    return lines[begin : next(number for number, line in enumerate(lines) if number > begin and line.startswith("="))]


def test_the_page_shows_what_is_reported(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        @pytest.mark.vast_faults(cold(600), status(503, retry_after=2), worker_dies())
        def test(vast_client):
            vast_client.call("my-endpoint", "/echo", {"n": 1}, cost=256)
        """,
    )
    result.assert_outcomes(failed=1)
    title, *lines = SHOWN.read_text("utf-8").splitlines()
    assert TITLE in title
    assert _section(result) == lines


@pytest.mark.parametrize("client", ["vast_client", "vast_blocking", "vast_trio", "vast_asyncio", "vast_loopback"])
def test_every_client_is_heard(pytester: pytest.Pytester, client: str) -> None:
    call = '.call("my-endpoint", "/echo", {"prompt": "a prompt of ours"})'
    body = {
        "vast_client": f"vast_client{call}",
        "vast_blocking": f"vast_blocking.client(){call}",
        "vast_trio": f"await vast_trio.client(){call}",
        "vast_asyncio": f"await vast_asyncio.client(){call}",
        "vast_loopback": f"with vastroute_io.blocking.Client(**vast_loopback.options) as client: client{call}",
    }[client]
    result = run(
        pytester,
        f"""
        {"async " if "await" in body else ""}def test({client}):
            {body}
            assert 0
        """,
    )
    result.assert_outcomes(failed=1)
    lines = [
        f"{client}, client 1",
        "     0.000 s  route 1: asked",
        "* s  worker 1 (1001): answered, HTTP 200",
        "the engine (asks: 1, grants: 1)",
        "*request_idx 1001 of my-endpoint, cost 100 (asks: 1, polls: 0): granted http*",
        "the worker http* (requests: 1)",
        "    /echo: 1",
    ]
    section = _section(result)
    pytest.LineMatcher(section).fnmatch_lines(lines)
    assert [secret for secret in SECRETS if secret in "".join(section)] == []


def test_failures_of_setup_and_teardown_have_it_too(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        @pytest.fixture
        def early(vast_client):
            vast_client.route("my-endpoint")
            assert 0

        @pytest.fixture
        def late(vast_client):
            yield
            assert 0

        def test_early(early): pass
        def test_late(late): pass
        """,
    )
    result.assert_outcomes(errors=2, passed=1)
    assert result.stdout.str().count(TITLE) == 2


def test_long_conversations_are_cut_in_the_middle(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test(vast_client):
            for number in range(1000):
                vast_client.route("my-endpoint", cost=number)
            assert 0
        """,
    )
    section = _section(result)
    pytest.LineMatcher(section).fnmatch_lines(["*... 1900 more lines", "the engine (asks: 1000, grants: 1000)"])
    assert len(section) < 200


def test_nothing_is_told_of_a_test_that_passed(pytester: pytest.Pytester) -> None:
    result = run(pytester, 'def test(vast_client): vast_client.route("my-endpoint")\n', "-rA")
    result.assert_outcomes(passed=1)
    assert TITLE not in result.stdout.str()


def test_nothing_is_told_of_a_test_without_us(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test(): assert 0\n")
    result.assert_outcomes(failed=1)
    assert TITLE not in result.stdout.str()

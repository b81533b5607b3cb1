"""What the marks say is what the engine does; and a mark without effect is a mistake."""

from __future__ import annotations

import pytest

from .inner import run

pytest_plugins = ["pytester"]


def test_marks_make_the_endpoints(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_by_default(vast_endpoints):
            assert vast_endpoints == [SimulatedEndpoint("my-endpoint")]

        @pytest.mark.vast_endpoint("a", workers=3)
        @pytest.mark.vast_endpoint("b", stopped=True)
        def test_several(vast_client, vast_engine):
            assert len(vast_engine.workers) == 4
            assert vast_client.call("a", "/echo", {}).status == 200
            with pytest.raises(Refused, match="topped"):
                vast_client.route("b")

        @pytest.mark.vast_endpoint("a", workers=1)
        @pytest.mark.vast_faults(cold(50), endpoint="b")
        class TestNearest:
            pytestmark = pytest.mark.vast_endpoint("b")

            @pytest.mark.vast_endpoint("a", workers=2)
            def test(self, vast_client, vast_engine):
                assert len(vast_engine.workers) == 3
                assert vast_client.route("a").counts.polls == 0
                assert vast_client.route("b").counts.polls > 9

        class TestOurOwn:
            @pytest.fixture
            def vast_endpoints(self):
                return [SimulatedEndpoint("ours", workers=5)]

            @pytest.mark.vast_faults(worker_dies(worker=5))
            def test(self, vast_client, vast_engine):
                assert len(vast_engine.workers) == 5
        """,
    )
    result.assert_outcomes(passed=4)


def test_faults_of_the_nearest_come_last(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        pytestmark = pytest.mark.vast_faults(status(500))

        @pytest.mark.vast_faults(status(502), status(503))
        class Test:
            @pytest.mark.vast_faults(status(504))
            def test(self, vast_client):
                found = vast_client.route("my-endpoint")
                troubles = [entry for entry in found.record if entry.kind is EntryKind.TROUBLE]
                assert [entry.status for entry in troubles] == [500, 502, 503, 504]
        """,
    )
    result.assert_outcomes(passed=1)


WRONG = {
    "the test does not use our vast_engine": """
        @pytest.mark.vast_faults(cold(600))
        def test(): pass
    """,
    "the mark vast_endpoint has no effect": """
        @pytest.fixture
        def vast_engine(): return SimulatedEngine(SimulatedEndpoint("a"))
        @pytest.mark.vast_endpoint("b")
        def test(vast_client): pass
    """,
    "vast_faults: there is no endpoint 'b', only my-endpoint": """
        @pytest.mark.vast_faults(cold(600), endpoint="b")
        def test(vast_client): pass
    """,
    "vast_faults: it takes endpoint by name, and nothing else: attempt": """
        @pytest.mark.vast_faults(cold(600), attempt=1)
        def test(vast_client): pass
    """,
    "vast_faults: say where it goes wrong: on_ask(Status(": """
        @pytest.mark.vast_faults(Status(503))
        def test(vast_client): pass
    """,
    "did you mean to call it?": """
        @pytest.mark.vast_faults(cold(1), bad_signature)
        def test(vast_client): pass
    """,
    "unexpected keyword argument 'worker'": """
        @pytest.mark.vast_endpoint("a", worker=2)
        def test(vast_client): pass
    """,
}


@pytest.mark.parametrize("text", WRONG)
def test_what_a_mark_cannot_mean_is_said(pytester: pytest.Pytester, text: str) -> None:
    result = run(pytester, WRONG[text])
    assert sum(result.parseoutcomes().values()) == 1
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert text in result.stdout.str()
    assert "pytest_plugin" not in result.stdout.str()  # no trace of our own code


def test_a_mark_of_a_module_may_leave_tests_alone(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        pytestmark = pytest.mark.vast_faults(cold(600))
        def test_without(): pass
        """,
    )
    result.assert_outcomes(passed=1)


def test_marks_are_listed(pytester: pytest.Pytester) -> None:
    result = run(pytester, "", "--markers")
    for name in ("vast_endpoint(", "vast_faults(", "vast_network:"):
        result.stdout.fnmatch_lines([f"@pytest.mark.{name}*"])

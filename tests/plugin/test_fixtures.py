"""The fixtures lead to the simulated engine, in one time, and say so where they were used wrongly."""

from __future__ import annotations

import pytest

from .inner import run

pytest_plugins = ["pytester"]


def test_every_client_waits_through_a_cold_start(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        pytestmark = pytest.mark.vast_faults(cold(600))

        def check(answer, vast_engine, vast_clock):
            assert answer.data == {"echo": {"n": 1}}
            assert 590 < answer.counts.seconds_waited < 620
            assert vast_engine.load("my-endpoint") == 100

        def test_memory(vast_client, vast_engine, vast_clock):
            check(vast_client.call(*CALL), vast_engine, vast_clock)
            assert vast_clock() > BEGIN + 590

        def test_blocking(vast_blocking_client, vast_engine, vast_clock):
            check(vast_blocking_client.call(*CALL), vast_engine, vast_clock)
            assert vast_clock() > BEGIN + 590

        async def test_trio(vast_trio_client, vast_engine, vast_clock):
            check(await vast_trio_client.call(*CALL), vast_engine, vast_clock)
            assert trio.current_time() > BEGIN + 590

        async def test_asyncio(vast_asyncio_client, vast_engine, vast_clock):
            check(await vast_asyncio_client.call(*CALL), vast_engine, vast_clock)
            assert asyncio.get_running_loop().time() > BEGIN + 590

        class TestInAClass:
            async def test_trio(self, vast_trio_client, vast_engine, vast_clock):
                check(await vast_trio_client.call(*CALL), vast_engine, vast_clock)
        """,
    )
    result.assert_outcomes(passed=5)


@pytest.mark.parametrize("kind", ["trio", "asyncio"])
def test_one_run_goes_on_where_the_last_one_ended(pytester: pytest.Pytester, kind: str) -> None:
    result = run(
        pytester,
        f"""
        from vastroute_io.{kind} import Client

        async def work(**options):
            async with Client(**options) as client:
                return await client.call("my-endpoint", "/slow", {{"seconds": 30}})

        def test(vast_{kind}, vast_clock, vast_client):
            for number in range(1, 4):
                assert vast_{kind}.run(lambda: work(**vast_{kind}.options)).status == 200
                assert vast_clock() == BEGIN + 130 * number - 100
                vast_clock.advance(100)
            vast_client.call("my-endpoint", "/slow", {{"seconds": 7}})
            assert vast_{kind}.run(vast_{kind}.client().call, *CALL).status == 200
            assert vast_clock() == BEGIN + 397
        """,
    )
    result.assert_outcomes(passed=1)


def test_time_stands_still_while_a_thread_is_at_work(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def work(): return sum(range(1_000_000))

        async def test_trio(vast_trio):
            with trio.move_on_after(5):
                await trio.to_thread.run_sync(work)
            assert trio.current_time() == BEGIN
            await trio.sleep(600)
            assert trio.current_time() == BEGIN + 600

        async def test_asyncio(vast_asyncio):
            async with asyncio.timeout(5):
                await asyncio.to_thread(work)
            assert asyncio.get_running_loop().time() == BEGIN

        async def test_a_thread_that_waits_for_virtual_time(vast_trio):
            await trio.to_thread.run_sync(lambda: trio.from_thread.run(trio.sleep, 600))
            assert trio.current_time() == BEGIN + 600
        """,
    )
    result.assert_outcomes(passed=3)


def test_options_replace_those_of_the_fixture(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        @pytest.mark.vast_faults(cold(600))
        def test(vast_blocking, vast_clock):
            seen = []
            client = vast_blocking.client(policy=RetryPolicy(total=5), observer=seen.append)
            with pytest.raises(Exception, match="deadline"):
                client.call(*CALL)
            assert seen and vast_clock() <= BEGIN + 5
        """,
    )
    result.assert_outcomes(passed=1)


def test_loopback_is_real(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import urllib.request

        def test_client(vast_loopback):
            with vastroute_io.blocking.Client(**vast_loopback.options) as client:
                assert client.call(*CALL).grant.url.startswith("http://127.0.0.1:")

        def test_others(vast_loopback):
            with urllib.request.urlopen(vast_loopback.url + "/pubkey/", timeout=10) as reply:
                assert reply.read().decode() == vast_loopback.engine.public_key
        """,
    )
    result.assert_outcomes(passed=2)


MIXED = "vast_loopback is in real time and cannot be mixed with"


@pytest.mark.parametrize(
    "names", ["vast_loopback, vast_client", "vast_trio_client, vast_loopback", "vast_loopback, vast_clock"]
)
def test_real_and_virtual_time_do_not_mix(pytester: pytest.Pytester, names: str) -> None:
    result = run(pytester, f"def test({names}): pass\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{MIXED}*"])


@pytest.mark.parametrize(("kind", "run_really"), [("trio", "trio.run(main)"), ("asyncio", "asyncio.run(main())")])
def test_a_client_in_real_time_says_so(pytester: pytest.Pytester, kind: str, run_really: str) -> None:
    result = run(
        pytester,
        f"""
        @pytest.mark.vast_faults(cold(600))
        def test(vast_{kind}_client):
            async def main():
                await vast_{kind}_client.call(*CALL)

            with pytest.raises(LocalProtocolError, match="run its code with vast_{kind}.run"):
                {run_really}
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_coroutine_function_has_one_library(pytester: pytest.Pytester) -> None:
    result = run(pytester, "async def test(vast_trio, vast_asyncio): pass\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*cannot use both of vast_trio and vast_asyncio*"])


def test_coroutine_functions_of_others_are_left_to_them(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
        import pytest

        def pytest_configure(config):
            config.addinivalue_line("markers", "trio: as pytest-trio has it")

        def pytest_pyfunc_call(pyfuncitem):
            print("run by another")
            return True
    """)
    result = run(
        pytester,
        """
        @pytest.mark.trio
        async def test_marked(vast_trio): assert 0
        async def test_without_ours(): assert 0
        async def test_in_no_loop_of_ours(vast_client): assert 0
        """,
        "-s",
    )
    result.assert_outcomes(passed=3)
    assert result.stdout.str().count("run by another") == 3


LEAKS = {
    "blocking client": """
        def test(vast_blocking):
            vastroute_io.blocking.Client(**vast_blocking.options).call(*CALL)
    """,
    "trio client": """
        async def test(vast_trio):
            await vastroute_io.trio.Client(**vast_trio.options).call(*CALL)
    """,
    "asyncio client": """
        async def test(vast_asyncio):
            await vastroute_io.asyncio.Client(**vast_asyncio.options).call(*CALL)
    """,
    "blocking stream": """
        def test(vast_blocking_client):
            next(vast_blocking_client.stream("my-endpoint", "/stream", {}).__enter__())
    """,
    "trio stream": """
        async def test(vast_trio_client):
            await vast_trio_client.stream("my-endpoint", "/stream", {}).__aenter__()
    """,
    "asyncio stream": """
        async def test(vast_asyncio_client):
            await vast_asyncio_client.stream("my-endpoint", "/stream", {}).__aenter__()
    """,
    "sockets": """
        @pytest.fixture
        def later():
            clients = []
            yield clients
            clients[0].close()

        def test(later, vast_loopback):
            later.append(vastroute_io.blocking.Client(**vast_loopback.options))
            later[0].call(*CALL)
    """,
}


@pytest.mark.parametrize("leak", LEAKS)
def test_what_is_left_open_fails_the_test(pytester: pytest.Pytester, leak: str) -> None:
    result = run(pytester, LEAKS[leak])
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*connections are still open at the end of the test, to http*"])


def test_a_failure_is_not_followed_by_its_leak(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test(vast_blocking):
            vastroute_io.blocking.Client(**vast_blocking.options).call(*CALL)
            assert 0
        """,
    )
    result.assert_outcomes(failed=1)


def test_a_fixture_that_closes_late_is_no_leak(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        @pytest.fixture
        def service(vast_blocking):
            with vastroute_io.blocking.Client(**vast_blocking.options) as client:
                yield client

        def test(service):
            assert service.call(*CALL).status == 200
        """,
    )
    result.assert_outcomes(passed=1)

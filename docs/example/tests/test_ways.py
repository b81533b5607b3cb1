"""One small test with each of the fixtures that lead to the simulated engine."""

import pytest

import vastroute_io.asyncio
import vastroute_io.blocking
import vastroute_io.trio
from vastroute_testing import EVERY, Html, SimulatedEndpoint, SimulatedEngine, Status
from vastroute_testing.trouble import cold, on_ask, on_work, troubled


# begin first
@pytest.mark.vast_faults(cold(600))
def test_a_cold_start(vast_client):
    answer = vast_client.call("my-endpoint", "/echo", {"n": 1})
    assert answer.data == {"echo": {"n": 1}}
    assert answer.counts.seconds_waited > 590
    # end first


# begin clients
def test_blocking_code(vast_blocking_client):
    assert vast_blocking_client.call("my-endpoint", "/echo", {"n": 1}).status == 200


async def test_trio_code(vast_trio_client):
    assert (await vast_trio_client.call("my-endpoint", "/echo", {"n": 1})).status == 200


async def test_asyncio_code(vast_asyncio_client):
    assert (await vast_asyncio_client.call("my-endpoint", "/echo", {"n": 1})).status == 200
    # end clients


# begin options
async def code_under_test(**options):
    async with vastroute_io.trio.Client(**options) as client:
        return await client.call("my-endpoint", "/echo", {"n": 1})


def test_code_that_makes_its_own_client(vast_trio):
    answer = vast_trio.run(lambda: code_under_test(**vast_trio.options))
    assert answer.status == 200
    # end options


# begin clock
def test_what_happens_an_hour_later(vast_blocking_client, vast_clock):
    begin = vast_clock()
    vast_blocking_client.call("my-endpoint", "/slow", {"seconds": 30})
    assert vast_clock() - begin == 30
    vast_clock.advance(3600)
    assert vast_blocking_client.call("my-endpoint", "/echo", {"n": 1}).counts.work_attempts == 1
    # end clock


# begin loopback
def test_over_sockets(vast_loopback):
    with vastroute_io.blocking.Client(**vast_loopback.options) as client:
        assert client.call("my-endpoint", "/echo", {"n": 1}).status == 200
    # end loopback


# begin where
@pytest.mark.vast_faults(
    on_ask(Status(503, retry_after=5), attempt=2),
    on_work(Html(status=502), route="/echo", worker=EVERY, attempt=1),
)
def test_a_bad_day(vast_client):
    assert vast_client.call("my-endpoint", "/echo", {"n": 1}, safe_to_repeat=True).counts.retries > 0
    # end where


# begin argument
def test_without_a_mark():
    endpoint = troubled(SimulatedEndpoint("my-endpoint", workers=2), cold(600), on_ask(Status(429)))
    assert SimulatedEngine(endpoint).workers[1].state(now=0.0).value == "created"
    # end argument


class TestWithAnEngineOfOurOwn:
    # begin own
    @pytest.fixture
    def vast_engine(self):
        return SimulatedEngine(SimulatedEndpoint("my-endpoint"), latency=0.25)

    def test_a_slow_engine(self, vast_client, vast_clock):
        begin = vast_clock()
        vast_client.call("my-endpoint", "/echo", {"n": 1})
        assert vast_clock() - begin == 0.25
        # end own

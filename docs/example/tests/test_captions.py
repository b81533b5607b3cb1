"""The captioner on days that nobody can order at Vast.ai, and that last ten minutes there."""

import pytest
import trio
from captions import COST, ENDPOINT, Caption, open_captioner

from vastroute import KeyRefused
from vastroute_testing import WorkerPlan
from vastroute_testing.trouble import cold, cut_stream_at, status, worker_dies

pytestmark = pytest.mark.vast_endpoint(ENDPOINT, workers=2)


# begin cold
@pytest.mark.vast_faults(cold(600))
async def test_ten_minutes_of_cold_start_are_waited_for(vast_trio, vast_engine):
    async with open_captioner(**vast_trio.options) as captioner:
        caption = await captioner.caption("cat.jpg")
    assert caption == Caption("cat.jpg", "You said: Describe cat.jpg", by="gpu")
    assert vast_engine.load(ENDPOINT) == COST  # counted once, however often it was asked


@pytest.mark.vast_faults(cold(600))
async def test_the_impatient_get_the_small_model(vast_trio):
    begin = trio.current_time()
    async with open_captioner(patience=30, **vast_trio.options) as captioner:
        caption = await captioner.caption("cat.jpg")
    assert caption.by == "cpu"
    assert trio.current_time() - begin <= 30
    # end cold


# begin dies
@pytest.mark.vast_faults(worker_dies(on=1))
async def test_a_worker_that_dies_at_work_is_replaced(vast_trio, vast_engine):
    async with open_captioner(**vast_trio.options) as captioner:
        caption = await captioner.caption("cat.jpg")
    assert caption.by == "gpu"
    assert [worker.served for worker in vast_engine.workers] == [1, 1]
    # end dies


# begin others
@pytest.mark.vast_faults(status(503, retry_after=20))
async def test_a_busy_engine_is_left_alone_for_as_long_as_it_says(vast_trio):
    begin = trio.current_time()
    async with open_captioner(**vast_trio.options) as captioner:
        caption = await captioner.caption("cat.jpg")
    assert caption.by == "gpu"
    assert trio.current_time() - begin == 20


@pytest.mark.vast_faults(cut_stream_at(2))
async def test_a_story_that_breaks_off_says_so(vast_trio):
    async with open_captioner(**vast_trio.options) as captioner:
        story = await captioner.story("cat.jpg")
    assert story == Caption("cat.jpg", "You said:", is_whole=False)


@pytest.mark.vast_endpoint(ENDPOINT, workers=[WorkerPlan(perf=1.0, max_queue_time=150)])
async def test_what_the_gpu_cannot_do_in_time_is_done_here(vast_trio):
    begin = trio.current_time()
    async with open_captioner(patience=200, **vast_trio.options) as captioner:
        captions = await captioner.caption_all([f"{number}.jpg" for number in range(8)])
    assert [caption.by for caption in captions].count("gpu") == 3  # a minute and four seconds each
    assert trio.current_time() - begin <= 200


async def test_a_wrong_key_is_no_reason_for_the_small_model(vast_trio):
    async with open_captioner(**vast_trio.options | {"key": "wrong"}) as captioner:
        with pytest.raises(KeyRefused):
            await captioner.caption("cat.jpg")
    # end others

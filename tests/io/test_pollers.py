"""Many streams over trio, which one poller waits for: nobody is forgotten, whoever leads and however he leaves."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from vastroute_io.trio.library import Trio
from vastroute_io.trio.pollers import EpollPoller, PolledStream, Poller, new_poller
from vastroute_io.trio.streams import SocketStream
from vastroute_testing import TestAuthority

AUTHORITY = TestAuthority()
needs_epoll = pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")
EACH_POLLER = pytest.mark.parametrize("poller_of", [Poller, pytest.param(EpollPoller, marks=needs_epoll)])
MANY = 130
"""More than are woken at once."""


class Reader:
    """Reads from one stream for as long as it is open."""

    def __init__(self, poller: Poller) -> None:
        here, self.there = socket.socketpair()
        self.there.setblocking(False)
        self.stream = SocketStream(here, Trio().alarms, poller)
        self.scope = trio.CancelScope()
        self.sent = self.got = b""
        self.may_fail = self.has_ended = False
        self.failure: Exception | None = None

    async def run(self) -> None:
        while not self.has_ended and self.failure is None:
            with trio.CancelScope() as self.scope:
                try:
                    data = await self.stream.receive_some(100)
                except (TimeoutError, trio.ClosedResourceError) as error:
                    self.failure = error
                else:
                    self.got += data
                    self.has_ended = not data

    def speak(self) -> None:
        if self.stream.fileno() >= 0 and self.there.fileno() >= 0:
            self.there.send(b"%d," % len(self.sent))
            self.sent += b"%d," % len(self.sent)

    def end(self) -> None:
        self.there.close()

    def cancel(self) -> None:
        self.scope.cancel()

    def expire(self) -> None:
        self.may_fail = True
        if self.stream.fileno() >= 0:
            self.stream.expire()

    def abort(self) -> None:
        self.may_fail = True
        self.stream.abort()

    def close(self) -> None:
        self.there.close()
        self.stream.abort()


DOINGS = (Reader.speak, Reader.end, Reader.cancel, Reader.expire, Reader.abort)


@EACH_POLLER
@given(
    moments=st.lists(
        st.lists(st.tuples(st.sampled_from(DOINGS), st.integers(0, 4)), min_size=1, max_size=6), max_size=12
    )
)
def test_everyone_gets_what_is_his(
    poller_of: Callable[[], Poller], moments: list[list[tuple[Callable[[Reader], None], int]]]
) -> None:
    async def main() -> None:
        with ExitStack() as stack:
            poller = poller_of()
            readers = [Reader(poller) for _ in range(5)]
            for reader in readers:
                stack.callback(reader.close)
            async with trio.open_nursery() as nursery:
                for reader in readers:
                    nursery.start_soon(reader.run)
                for moment in moments:
                    await wait_all_tasks_blocked()
                    for do, number in moment:  # all at the same instant
                        do(readers[number])
                await wait_all_tasks_blocked()
                for reader in readers:
                    if reader.failure is None:
                        reader.speak()
                await wait_all_tasks_blocked()
                for reader in readers:
                    if reader.failure is None:
                        assert reader.got == reader.sent
                        assert reader.has_ended is (reader.there.fileno() < 0)
                    else:
                        assert reader.sent.startswith(reader.got)
                        assert reader.may_fail
                nursery.cancel_scope.cancel()

    trio.run(main)


@EACH_POLLER
def test_many_who_are_spoken_to_at_once(poller_of: Callable[[], Poller]) -> None:
    async def main() -> None:
        with ExitStack() as stack:
            poller = poller_of()
            readers = [Reader(poller) for _ in range(MANY)]
            for reader in readers:
                stack.callback(reader.close)
            async with trio.open_nursery() as nursery:
                for reader in readers:
                    nursery.start_soon(reader.run)
                for _ in range(3):
                    await wait_all_tasks_blocked()
                    for reader in readers:
                        reader.speak()
                await wait_all_tasks_blocked()
                assert [reader.got for reader in readers] == [b"0,2,4,"] * MANY
                nursery.cancel_scope.cancel()

    trio.run(main)


@EACH_POLLER
def test_what_is_there_when_the_time_is_up_is_read_and_nothing_after_it(poller_of: Callable[[], Poller]) -> None:
    async def main() -> None:
        poller = poller_of()
        readers = [Reader(poller) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(reader.run)
            await wait_all_tasks_blocked()
            for reader in readers:
                reader.speak()
                reader.expire()
            await wait_all_tasks_blocked()
            assert [reader.got for reader in readers] == [b"0,"] * 3
            for reader in readers:
                reader.expire()
        assert [type(reader.failure) for reader in readers] == [TimeoutError] * 3
        assert [reader.stream.fileno() for reader in readers] == [-1] * 3
        for reader in readers:
            reader.close()

    trio.run(main)


@EACH_POLLER
def test_who_was_to_wait_for_all_next_is_closed_before_it_does(poller_of: Callable[[], Poller]) -> None:
    async def main() -> None:
        poller = poller_of()
        first, *others = (Reader(poller) for _ in range(4))

        async def read_and_close(closed: Reader) -> None:
            await first.stream.receive_some(100)
            closed.abort()

        for closed in others[:]:
            others.remove(closed)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_and_close, closed)
                await wait_all_tasks_blocked()
                for reader in (*others, closed):
                    nursery.start_soon(reader.run)
                    await wait_all_tasks_blocked()
                first.speak()
                await wait_all_tasks_blocked()
                assert isinstance(closed.failure, trio.ClosedResourceError)
                for reader in others:
                    reader.speak()
                await wait_all_tasks_blocked()
                assert [reader.got for reader in others] == [reader.sent for reader in others]
                nursery.cancel_scope.cancel()
            closed.close()
        first.close()

    trio.run(main)


@EACH_POLLER
def test_what_tls_leaves_in_the_socket_is_read_too(poller_of: Callable[[], Poller]) -> None:
    async def main() -> None:
        poller = poller_of()
        readers = [Reader(poller) for _ in range(3)]
        for reader in readers:
            reader.there.setblocking(True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.stream.start_tls, AUTHORITY.client_context(), "localhost")
                wrap = partial(AUTHORITY.server_context().wrap_socket, server_side=True)
                reader.there = await trio.to_thread.run_sync(wrap, reader.there)
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(reader.run)
            for size in (1, 3, 40):
                await wait_all_tasks_blocked()
                for reader in readers:
                    for _ in range(size):
                        reader.speak()  # each time in a record of its own
                await wait_all_tasks_blocked()
                assert [reader.got for reader in readers] == [reader.sent for reader in readers]
            for reader in readers:
                reader.speak()
                reader.end()
            await wait_all_tasks_blocked()
            assert [(reader.got, reader.has_ended) for reader in readers] == [(reader.sent, True) for reader in readers]
        for reader in readers:
            reader.close()

    trio.run(main)


def test_a_stream_that_cannot_be_entered_is_closed() -> None:
    class Full(Poller):
        def add(self, stream: PolledStream) -> None:
            raise OSError(errno.ENOSPC, "the user's limit of watches is reached")

    async def main() -> None:
        here, there = socket.socketpair()
        with pytest.raises(OSError, match="limit of watches"):
            SocketStream(here, Trio().alarms, Full())
        assert here.fileno() < 0
        there.close()

    trio.run(main)


def test_no_interrupt_comes_between() -> None:
    protected: list[bool] = []

    class Noting(Poller):
        def hear(self, stream: PolledStream) -> Awaitable[Any]:
            protected.append(trio.lowlevel.currently_ki_protected())
            return super().hear(stream)

        def drop(self, stream: PolledStream) -> None:
            protected.append(trio.lowlevel.currently_ki_protected())
            super().drop(stream)

    async def main() -> None:
        reader = Reader(Noting())
        reader.speak()
        assert await reader.stream.receive_some(100) == b"0,"
        assert not trio.lowlevel.currently_ki_protected()
        reader.close()

    trio.run(main)
    assert protected == [True, True]


@EACH_POLLER
def test_the_end_is_told_as_often_as_it_is_asked_for(poller_of: Callable[[], Poller]) -> None:
    async def main() -> None:
        reader = Reader(poller_of())
        reader.speak()
        reader.end()
        for data in (b"0,", b"", b"", b""):
            assert await reader.stream.receive_some(100) == data
        reader.close()

    trio.run(main)


@EACH_POLLER
def test_more_than_is_read_at_once(poller_of: Callable[[], Poller]) -> None:
    async def main() -> None:
        reader = Reader(poller_of())
        reader.there.send(b"0123456789")
        for data in (b"0123", b"4567", b"89"):
            assert await reader.stream.receive_some(4) == data
        with trio.move_on_after(0) as scope:
            await reader.stream.receive_some(4)
        assert scope.cancelled_caught
        reader.close()

    trio.run(main)


@EACH_POLLER
def test_one_poller_serves_one_run_of_trio_after_another(poller_of: Callable[[], Poller]) -> None:
    poller = poller_of()
    readers = [Reader(poller) for _ in range(3)]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(reader.run)
            await wait_all_tasks_blocked()
            for reader in readers:
                reader.speak()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def close() -> None:
        for reader in readers:
            reader.close()

    trio.run(main)
    trio.run(main)
    trio.run(close)
    assert [reader.got for reader in readers] == [b"0,2,"] * 3


@needs_epoll
def test_a_copy_that_a_forked_child_keeps_disturbs_nobody() -> None:
    async def main() -> None:
        poller = EpollPoller()
        closed, open_ = Reader(poller), Reader(poller)
        copy = os.dup(closed.stream.fileno())
        closed.stream.abort()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_.run)
            await wait_all_tasks_blocked()
            closed.there.send(b"for the child")
            await wait_all_tasks_blocked()
            open_.speak()
            await wait_all_tasks_blocked()
            assert open_.got == b"0,"
            nursery.cancel_scope.cancel()
        os.close(copy)
        for reader in (closed, open_):
            reader.close()

    trio.run(main)


@needs_epoll
def test_nothing_is_left_open_once_every_stream_is_closed() -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        gc.collect()  # what other tests have left would be closed some time
        before = opened()
        poller = new_poller()
        for _ in range(2):
            readers = [Reader(poller) for _ in range(2)]
            assert opened() == before + 5
            for reader in readers:
                reader.close()
            assert opened() == before

    trio.run(main)

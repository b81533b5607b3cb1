"""What every transport's streams and sessions have in common: what can be known without any I/O."""

from __future__ import annotations

from vastroute import (
    Answer,
    Call,
    Counts,
    Headers,
    LocalProtocolError,
    Record,
    SessionHandle,
    SessionLife,
    SessionState,
)


class StreamView:
    """What a stream knows of its answer."""

    _call: Call | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        head = self._begun.stream_head
        assert head is not None
        return head.status

    @property
    def headers(self) -> Headers:
        """The answer's headers."""
        head = self._begun.stream_head
        assert head is not None
        return head.headers

    @property
    def finished(self) -> bool:
        """Whether the stream has said itself that it is done, with OpenAI's ``[DONE]``."""
        return self._begun.finished

    @property
    def request_idx(self) -> int | None:
        """The request's number at the engine."""
        return self._begun.request_idx

    @property
    def counts(self) -> Counts:
        """How often things have happened so far."""
        return self._begun.counts

    @property
    def record(self) -> Record:
        """What has happened so far."""
        return self._begun.record

    def result(self) -> Answer:
        """Everything about the answer but its events, once they are over; or the error that ended it, raised."""
        return self._begun.result()

    @property
    def _begun(self) -> Call:
        if self._call is None:
            raise LocalProtocolError("the stream has not begun: enter its block first")
        return self._call

    def _check_new(self) -> None:
        if self._call is not None:
            raise LocalProtocolError("a stream is entered once: ask for another one")


class SessionView:
    """What a session knows of itself."""

    _life: SessionLife | None = None
    _detached = False

    @property
    def life(self) -> SessionLife:
        """The account of its lifetime: until when it is kept, how much was stacked up."""
        if self._life is None:
            raise LocalProtocolError("the session has not begun: enter its block first")
        return self._life

    @property
    def handle(self) -> SessionHandle:
        """All that it takes to go on with it elsewhere: see `vastroute.SessionHandle.save`. It holds a secret."""
        return self.life.handle

    def detach(self) -> SessionHandle:
        """Leave the session open when its block is left, to be taken up elsewhere; the handle with which that is done.

        Nobody ends it then but whoever takes it up, or its own lifetime.
        """
        handle = self.handle  # first, so that misuse changes nothing
        self._detached = True
        return handle

    @property
    def _is_ours_to_end(self) -> bool:
        return not self._detached and self.life.state is SessionState.OPEN

    def _check_new(self) -> None:
        if self._life is not None:
            raise LocalProtocolError("a session is entered once: ask for another one")

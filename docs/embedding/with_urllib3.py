"""vastroute's machines over urllib3. `tls` holds an SSL context for each `vastroute.Phase`."""

from time import monotonic, sleep

import urllib3

import vastroute


def drive(machine, tls):
    """Do what the machine asks for, to its end. Gives a stream's events as they come; returns the result."""
    while isinstance(action := machine.next_action(now=monotonic()), vastroute.WaitUntil | vastroute.Send):
        if isinstance(action, vastroute.WaitUntil):
            sleep(max(0.0, action.at - monotonic()))
        else:
            yield from exchange(machine, action, tls[action.phase])
    return machine.result()


def exchange(machine, send, tls):
    """One request and its answer, over a connection of its own."""
    ask, (connect, read) = send.request, send.timeouts(now=monotonic())
    pool = urllib3.PoolManager(ssl_context=tls, retries=False, timeout=urllib3.Timeout(connect=connect, read=read))
    options = {"headers": dict(ask.headers), "body": ask.body, "redirect": False, "preload_content": False}
    try:
        send.check_host()
        with pool.connection_from_url(ask.url) as host, host.request(ask.method, ask.target, **options) as reply:
            machine.head(vastroute.ResponseHead(status=reply.status, headers=reply.headers), now=monotonic())
            while machine.read_limit(now=monotonic()):
                machine.feed([reply.read1(65536, decode_content=False) or vastroute.End()], now=monotonic())
                while (event := machine.next_event(now=monotonic())) is not None:
                    yield event
    except (urllib3.exceptions.HTTPError, TimeoutError, vastroute.ConnectionFailed) as error:
        sent = False if isinstance(error, urllib3.exceptions.ConnectTimeoutError) else None
        machine.failed(error, sent=sent, now=monotonic())

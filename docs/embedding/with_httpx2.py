"""vastroute's machines over httpx2. `tls` holds an SSL context for each `vastroute.Phase`."""

from time import monotonic, sleep

import httpx2

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
    client = httpx2.Client(verify=tls, trust_env=False, timeout=httpx2.Timeout(read, connect=connect))
    options = {"headers": [*ask.headers], "content": ask.body, "follow_redirects": False}
    try:
        send.check_host()
        with client, client.stream(ask.method, ask.url, **options) as reply:
            machine.head(vastroute.ResponseHead(status=reply.status_code, headers=reply.headers.raw), now=monotonic())
            pieces = reply.iter_raw()
            while machine.read_limit(now=monotonic()):
                machine.feed([next(pieces, vastroute.End())], now=monotonic())
                while (event := machine.next_event(now=monotonic())) is not None:
                    yield event
    except (httpx2.HTTPError, TimeoutError, vastroute.ConnectionFailed) as error:
        machine.failed(error, sent=False if isinstance(error, httpx2.ConnectTimeout) else None, now=monotonic())

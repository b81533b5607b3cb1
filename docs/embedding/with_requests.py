"""vastroute's machines over requests. `roots` holds a PEM file, or True for its own, for each `vastroute.Phase`."""

from time import monotonic, sleep

import requests
from urllib3.exceptions import HTTPError

import vastroute


def drive(machine, roots):
    """Do what the machine asks for, to its end. Gives a stream's events as they come; returns the result."""
    while isinstance(action := machine.next_action(now=monotonic()), vastroute.WaitUntil | vastroute.Send):
        if isinstance(action, vastroute.WaitUntil):
            sleep(max(0.0, action.at - monotonic()))
        else:
            yield from exchange(machine, action, roots[action.phase])
    return machine.result()


def exchange(machine, send, roots):
    """One request and its answer, over a connection of its own."""
    ask, headers = send.request, {**dict(send.request.headers), "connection": "close"}
    request = requests.Request(ask.method, ask.url, headers=headers, data=ask.body).prepare()
    options = {"timeout": send.timeouts(now=monotonic()), "verify": roots, "stream": True}
    try:
        send.check_host()
        # Below the session there are no redirects, no cookies, no proxies, and no netrc, which would replace the key.
        with requests.Session() as session, session.get_adapter(ask.url).send(request, **options) as reply:
            machine.head(vastroute.ResponseHead(status=reply.status_code, headers=reply.raw.headers), now=monotonic())
            while machine.read_limit(now=monotonic()):
                machine.feed([reply.raw.read1(65536, decode_content=False) or vastroute.End()], now=monotonic())
                while (event := machine.next_event(now=monotonic())) is not None:
                    yield event
    except (requests.RequestException, HTTPError, TimeoutError, vastroute.ConnectionFailed) as error:
        machine.failed(error, sent=False if isinstance(error, requests.ConnectTimeout) else None, now=monotonic())

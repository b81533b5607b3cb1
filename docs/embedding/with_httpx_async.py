"""vastroute's machines over httpx's AsyncClient. `tls` holds an SSL context for each `vastroute.Phase`."""

import asyncio
from time import monotonic as now

import httpx

import vastroute


async def drive(machine, tls):
    """Do what the machine asks for, to its end. Gives a stream's events as they come; raises what ended it."""
    while isinstance(action := machine.next_action(now=now()), vastroute.WaitUntil | vastroute.Send):
        if isinstance(action, vastroute.WaitUntil):
            await asyncio.sleep(action.at - now())
            continue
        ask, (connect, total) = action.request, action.timeouts(now=now())
        options = {"verify": tls[action.phase], "trust_env": False, "timeout": httpx.Timeout(None, connect=connect)}
        try:
            action.check_host()
            async with httpx.AsyncClient(**options) as client:
                request = client.build_request(ask.method, ask.url, headers=[*ask.headers], content=ask.body)
                reply = await asyncio.wait_for(client.send(request, stream=True, follow_redirects=False), total)
                machine.head(vastroute.ResponseHead(status=reply.status_code, headers=reply.headers.raw), now=now())
                pieces = reply.aiter_raw()
                while left := machine.read_limit(now=now()):
                    machine.feed([await asyncio.wait_for(anext(pieces, vastroute.End()), left)], now=now())
                    while (event := machine.next_event(now=now())) is not None:
                        yield event
        except (httpx.HTTPError, TimeoutError, vastroute.ConnectionFailed) as error:
            machine.failed(error, sent=False if isinstance(error, httpx.ConnectTimeout) else None, now=now())
    machine.result()

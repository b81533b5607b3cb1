"""vastroute's machines over aiohttp. `tls` holds an SSL context for each `vastroute.Phase`."""

import asyncio
from time import monotonic as now

import aiohttp

import vastroute


async def drive(machine, tls):
    """Do what the machine asks for, to its end. Gives a stream's events as they come; raises what ended it."""
    while isinstance(action := machine.next_action(now=now()), vastroute.WaitUntil | vastroute.Send):
        if isinstance(action, vastroute.WaitUntil):
            await asyncio.sleep(action.at - now())
            continue
        ask, (connect, total) = action.request, action.timeouts(now=now())
        options = {"headers": [*ask.headers], "data": ask.body, "allow_redirects": False, "ssl": tls[action.phase]}
        try:
            action.check_host()
            client = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(connect=connect))
            async with client, await asyncio.wait_for(client.request(ask.method, ask.url, **options), total) as reply:
                machine.head(vastroute.ResponseHead(status=reply.status, headers=reply.raw_headers), now=now())
                while left := machine.read_limit(now=now()):
                    piece = await asyncio.wait_for(reply.content.readany(), left)
                    machine.feed([piece or vastroute.End()], now=now())
                    while (event := machine.next_event(now=now())) is not None:
                        yield event
        except (aiohttp.ClientError, TimeoutError, vastroute.ConnectionFailed) as error:
            sent = False if isinstance(error, aiohttp.ConnectionTimeoutError) else None
            machine.failed(error, sent=sent, now=now())
    machine.result()

"""``vastroute engine``: a simulated engine with its workers, for trying things out and for other languages' tests."""

from __future__ import annotations

import signal
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from vastroute import FORMS, InvalidValue, RouteRequest, Secret, SigningForm

from .exits import Exit
from .output import plural, say, write_json

if TYPE_CHECKING:
    from vastroute_testing import SimulatedEngine

ACCOUNT_KEY = "test-account-key"
"""The key of the simulated account, for `endpoints` and `workers`."""

Host: TypeAlias = Annotated[str, Parameter(help="The loopback address to listen at.")]
Port: TypeAlias = Annotated[int, Parameter(help="The engine's port; 0 takes a free one. Workers take free ones.")]
Endpoint: TypeAlias = Annotated[str, Parameter(help="The endpoint's name.")]
ApiKey: TypeAlias = Annotated[str, Parameter(help="The endpoint's key: a test key, never a real one.")]
Workers: TypeAlias = Annotated[int, Parameter(help="How many workers.")]
ReadyAfter: TypeAlias = Annotated[float, Parameter(help="The cold start, in seconds from the first time it is asked.")]
WorkerUrls: TypeAlias = Annotated[
    tuple[str, ...],
    Parameter(
        name="--worker-url",
        negative="",
        show_default=False,
        help="The address of a worker of yours to hand out instead of simulated ones; may be repeated.",
    ),
]
Signing: TypeAlias = Annotated[str, Parameter(help="The form in which grants are signed.")]
Tls: TypeAlias = Annotated[
    bool, Parameter(negative="", show_default=False, help="Speak TLS, under a test authority made for this run.")
]
Seed: TypeAlias = Annotated[int, Parameter(help="What its random names are drawn from.")]
OnlyJson: TypeAlias = Annotated[
    bool,
    Parameter(name=["--json", "--raw"], negative="", show_default=False, help="Print nothing but the line of JSON."),
]


def engine(
    *,
    host: Host = "127.0.0.1",
    port: Port = 0,
    endpoint: Endpoint = "demo",
    api_key: ApiKey = "test-endpoint-key",
    workers: Workers = 2,
    ready_after: ReadyAfter = 0.0,
    worker_url: WorkerUrls = (),
    signing: Signing = FORMS[0].name,
    tls: Tls = False,
    seed: Seed = 0,
    json: OnlyJson = False,
) -> Exit:
    """Serve a simulated engine and its workers on this machine, until Ctrl-C.

    When it can be asked, one line of JSON says where: engine_url, endpoint, api_key, account_key, public_key, workers,
    and with --tls the test authority's certificate (ca, and ca_file, which is deleted at the end).
    """
    import trio

    from vastroute_testing import SimulatedEndpoint, SimulatedEngine

    RouteRequest(endpoint=endpoint)  # it raises for a name that nobody could ask for
    Secret(api_key)
    if not 0 <= port <= 65535:
        raise InvalidValue("--port must be from 0 to 65535")
    simulated = SimulatedEngine(
        SimulatedEndpoint(endpoint, key=api_key, workers=workers, ready_after=ready_after, worker_urls=worker_url),
        account_key=ACCOUNT_KEY,
        form=_form(signing),
        seed=seed,
    )
    said: dict[str, Any] = {"endpoint": endpoint, "api_key": api_key, "account_key": ACCOUNT_KEY}
    said |= {"public_key": simulated.public_key}
    with _authority(host) if tls else _plain() as (context, authority):
        trio.run(_serve, simulated, host, port, context, said | authority, list(worker_url), json)
    return Exit.DONE


async def _serve(
    simulated: SimulatedEngine,
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    said: dict[str, Any],
    addresses: list[str],
    quiet: bool,
) -> None:
    import trio

    from vastroute_testing import open_loopback

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with open_loopback(simulated, host=host, port=port, ssl_context=context) as loopback:
                urls = [worker.url for worker in simulated.workers] or addresses
                write_json({"engine_url": loopback.url, **said, "workers": urls})
                if not quiet:
                    _say_how(loopback.url, said, len(urls))
                async for _ in signals:
                    return
        except OSError as error:
            raise InvalidValue(f"cannot listen at {host} port {port}: {error.strerror or error}") from None


def _say_how(url: str, said: dict[str, Any], workers: int) -> None:
    """What to type next, for a person."""
    call = f'vastroute call {said["endpoint"]} /v1/completions --payload \'{{"prompt": "hello"}}\''
    environment = f"VAST_ROUTE_URL={url} VAST_API_KEY={said['api_key']}"
    if "ca_file" in said:
        environment += f" SSL_CERT_FILE={said['ca_file']}"
        options = f"--worker-ca {said['ca_file']} --allow-private-address"
    else:
        options = "--allow-plain-http --allow-private-address"
    say(f"the simulated engine serves {said['endpoint']!r} with {plural(workers, 'worker')}; Ctrl-C ends it. Try:")
    say(f"  export {environment}")
    say(f"  {call} {options}")


def _form(name: str) -> SigningForm:
    for form in FORMS:
        if form.name == name:
            return form
    raise InvalidValue(f"--signing must be one of {', '.join(form.name for form in FORMS)}")


@contextmanager
def _plain() -> Iterator[tuple[None, dict[str, Any]]]:
    yield None, {}


@contextmanager
def _authority(host: str) -> Iterator[tuple[ssl.SSLContext, dict[str, Any]]]:
    """A test authority, with its certificate in a file that lasts as long."""
    try:
        from vastroute_testing import TestAuthority
    except ModuleNotFoundError as error:
        raise InvalidValue(f"--tls needs {error.name}: pip install 'vastroute[cli]'") from None
    authority = TestAuthority()
    with tempfile.TemporaryDirectory(prefix="vastroute-") as folder:
        path = Path(folder) / "ca.pem"
        path.write_bytes(authority.pem)
        yield authority.server_context(host, "localhost"), {"ca": authority.pem.decode("ascii"), "ca_file": str(path)}

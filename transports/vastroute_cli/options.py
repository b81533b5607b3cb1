"""The options that several commands take, and the client that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import attrs
from cyclopts import Parameter

from vastroute import ENGINE, Guard, InvalidValue, Origin, Secret
from vastroute_io.options import ClientOptions, Observer, RouteOptions
from vastroute_io.recording import Recorder


def read_file(path: Path, option: str) -> bytes:
    """The bytes of the file that `option` names. Raises `InvalidValue` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{option} {path}: {error.strerror or type(error).__name__}") from None


def number(_type: Any, tokens: Any) -> int | float:
    """A number as it was written: an int stays an int, also on the wire."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        return float(text)


Name: TypeAlias = Annotated[str, Parameter(help="The endpoint's name.")]
Json: TypeAlias = Annotated[
    bool, Parameter(name=["--json", "--raw"], negative="", show_default=False, help="One JSON object on each line.")
]
KeyFile: TypeAlias = Annotated[
    Path | None,
    Parameter(help="A file that holds the key. Without it: VAST_API_KEY, then ~/.config/vastai/vast_api_key."),
]
EngineUrl: TypeAlias = Annotated[
    str | None, Parameter(env_var="VAST_ROUTE_URL", help=f"The engine's address; {ENGINE} if it is not named.")
]
ConsoleUrl: TypeAlias = Annotated[
    str | None,
    Parameter(help="The console's address, which knows an account's endpoints; production's for production's engine."),
]
Cost: TypeAlias = Annotated[
    float | None,
    Parameter(converter=number, help="The work, in the units of the endpoint's workers; 100 if it is not named."),
]
Seconds: TypeAlias = Annotated[float | None, Parameter(help="Seconds for all of it; 900 if it is not named.")]
RequestIdx: TypeAlias = Annotated[int | None, Parameter(help="Go on with this request instead of beginning another.")]
Signature: TypeAlias = Annotated[
    Literal["off", "report", "require"],
    Parameter(help="Whether to check the grant's signature, and whether to refuse what does not verify."),
]
PublicKeyFile: TypeAlias = Annotated[
    Path | None,
    Parameter(help="The engine's public key: PEM, DER or its base64. With require it is fetched if it is not here."),
]
Recording: TypeAlias = Annotated[
    Path | None,
    Parameter(
        help="Append the conversation to this file, to be replayed in tests: without keys, payloads and answers."
    ),
]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Account:
    """Whose key, and where it is shown."""

    engine_url: EngineUrl = None
    console_url: ConsoleUrl = None
    key_file: KeyFile = None
    allow_plain_http: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Send the key to an engine, and the work to a worker, without TLS."
        ),
    ] = False

    @property
    def guard(self) -> Guard:
        """What is allowed of engine, console and workers."""
        return Guard(allow_plain_http=self.allow_plain_http)

    def client(self) -> ClientOptions:
        """The options of a client for this account."""
        options = ClientOptions(guard=self.guard)
        if self.engine_url is not None:
            options["engine"] = Origin.parse(self.engine_url)
        if self.console_url is not None:
            options["console"] = Origin.parse(self.console_url)
        if self.key_file is not None:
            try:
                text = read_file(self.key_file, "--key-file").decode("ascii")
            except UnicodeDecodeError:
                raise InvalidValue(f"--key-file {self.key_file} does not hold a key: it is not plain text") from None
            options["key"] = Secret(text.strip())
        return options

    def with_console(self) -> ClientOptions:
        """The same for what only a console answers. Raises `InvalidValue` where none is known."""
        options = self.client()
        if "console" not in options and options.get("engine", ENGINE) != ENGINE:
            raise InvalidValue("no console is known for this engine: name it with --console-url")
        return options


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Asking(Account):
    """How to ask for a worker, and what to look at in the grant."""

    cost: Cost = None
    request_idx: RequestIdx = None
    timeout: Seconds = None
    signature: Signature = "report"
    public_key: PublicKeyFile = None
    record: Recording = None

    def client_for(self, observer: Observer, **more: Any) -> ClientOptions:
        """The options of a client for one call that `observer` watches."""
        options = self.client()
        options["observer"] = observer
        options["signature"] = self.signature
        if self.record is not None:
            options["recorder"] = Recorder(self.record)
        if self.public_key is not None:
            options["public_key"] = read_file(self.public_key, "--public-key")
        return ClientOptions(**{**options, **more})  # type: ignore[typeddict-item]

    def route(self) -> RouteOptions:
        """The options of the route call; what was not named is left to the library."""
        options = RouteOptions(request_idx=self.request_idx, timeout=self.timeout)
        if self.cost is not None:
            options["cost"] = self.cost
        return options


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Allowing:
    """Where a grant may lead, and whom to trust there."""

    allow_private_address: Annotated[
        bool, Parameter(negative="", show_default=False, help="Send it to an address that is not public.")
    ] = False
    worker_ca: Annotated[
        Path | None, Parameter(help="The certificate (PEM or DER) that workers are trusted by, not Vast.ai's own.")
    ] = None
    strict_worker_tls: Annotated[
        bool, Parameter(show_default=False, help="Hold X.509's finer rules against a worker's certificate (default).")
    ] = True

    def client(self, guard: Guard) -> dict[str, Any]:
        """The options of a client that goes by this, beyond what its `guard` allows already."""
        guard = attrs.evolve(guard, allow_private_address=self.allow_private_address)
        root = None if self.worker_ca is None else read_file(self.worker_ca, "--worker-ca")
        return {"guard": guard, "worker_root": root, "strict_worker_tls": self.strict_worker_tls}

"""The official PyWorker as a program of its own, which `interop.stage` starts: ``official_worker.py SETTINGS``.

SETTINGS is a JSON object: `model`, the port of the model server; `tls`, the files of a certificate and its key, or
null. Everything else comes from the environment, as on a rented machine. It reaches loopback only.
"""

from __future__ import annotations

import json
import ssl
import sys
from importlib import import_module
from ipaddress import ip_address
from typing import Any

ROUTES = ("/echo", "/stream", "/status", "/slow", "/media", "/v1/completions", "/v1/chat/completions")
"""Passed on to the model as they are, any number at a time."""
DATA_TYPES = "vastai.serverless.server.lib.data_types"
FORBIDDEN = "dials out"
"""What it says before it is kept from it."""
LOADED = "the model is loaded"
"""The line of the model's log that says so."""


def forbid_dialling_out(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: the official package is not ours, so what it does with sockets is watched, not believed."""
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    try:
        allowed = host is None or ip_address(host).is_loopback
    except ValueError:
        allowed = False
    if not allowed:
        sys.stderr.write(f"{FORBIDDEN}: {event} {host}\n")
        raise PermissionError(f"{event}: {host} is not loopback")


def strict(payload: dict[str, Any]) -> dict[str, Any]:
    """A payload parser that wants a prompt."""
    if "prompt" not in payload:
        refusal: Exception = import_module(DATA_TYPES).JsonDataException({"prompt": "missing parameter"})
        raise refusal
    return payload


def main(settings: dict[str, Any]) -> None:
    """Serve until it is ended."""
    vastai: Any = import_module("vastai")  # it has no types
    if settings["tls"] is not None:
        # It reads files under /etc, which a test does not write.
        load = ssl.SSLContext.load_cert_chain
        certificate, key = settings["tls"]
        ssl.SSLContext.load_cert_chain = (  # type: ignore[method-assign]
            lambda self, *_arguments, **_named: load(self, certificate, key)
        )
    handlers = [vastai.HandlerConfig(route=route, allow_parallel_requests=True) for route in ROUTES]
    handlers += [
        vastai.HandlerConfig(route="/fifo", benchmark_config=vastai.BenchmarkConfig(dataset=[{}])),
        vastai.HandlerConfig(route="/busy", allow_parallel_requests=True, max_queue_time=0.5),
        vastai.HandlerConfig(route="/strict", allow_parallel_requests=True, request_parser=strict),
    ]
    config = vastai.WorkerConfig(
        model_server_url="http://127.0.0.1",
        model_server_port=settings["model"],
        model_log_file="model.log",
        model_healthcheck_url="/health",
        handlers=handlers,
        log_action_config=vastai.LogActionConfig(on_load=[LOADED]),
        max_sessions=3,
    )
    vastai.Worker(config).run(host="127.0.0.1", reuse_port=True)


if __name__ == "__main__":
    sys.addaudithook(forbid_dialling_out)
    main(json.loads(sys.argv[1]))

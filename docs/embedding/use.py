"""Whom to trust, and a call with one of the embeddings: `drive` is its function."""

import ssl

import vastroute


def contexts(worker_root):
    """For the libraries that take SSL contexts; `worker_root` is Vast.ai's root certificate in DER."""
    workers = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it has no root yet
    workers.load_verify_locations(cadata=worker_root)
    return dict.fromkeys(vastroute.Phase, ssl.create_default_context()) | {vastroute.Phase.WORKER: workers}


def files(worker_root, path):
    """For the libraries that take files, requests and niquests; the root is left at `path`, a `pathlib.Path`."""
    path.write_text(ssl.DER_cert_to_PEM_cert(worker_root))
    return dict.fromkeys(vastroute.Phase, True) | {vastroute.Phase.WORKER: str(path)}


def hello(drive, roots, route, **options):
    """Have a worker of `route` (a `vastroute.RouteCall`) complete a text, and print it as it comes."""
    payload = {"prompt": "Hello", "stream": True}
    work = vastroute.WorkerRequest(route="/v1/completions", payload=payload, stream=True)
    call = vastroute.Call(route, work, **options)
    for event in drive(call, roots):
        if not event.done:
            print(event.json()["choices"][0]["text"], end="")
    return call.result()

"""The guards of ``conftest.py`` stop what they are for, and let pass what tests need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = "import signal, socket, subprocess, sys, time\nimport pytest\nfrom time import sleep\n"
FORBIDDEN = """
def test_dials_out(): socket.create_connection(("192.0.2.1", 80), timeout=1)
def test_dials_out_over_ipv6(): socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80))
def test_dials_quietly(): socket.socket().connect_ex(("0.0.0.0", 80))
def test_sends_a_datagram(): socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 53))
def test_looks_up_a_name(): socket.getaddrinfo("worker.example", 443)
def test_looks_up_a_name_in_the_old_way(): socket.gethostbyname("worker.example")
def test_sleeps(): time.sleep(0.001)
def test_sleeps_by_a_name_of_its_own(): sleep(0.001)
def test_hides_it():
    with pytest.raises(AssertionError):
        time.sleep(1)
def test_hangs():
    signal.setitimer(signal.ITIMER_REAL, 0.01)  # the limit, sooner
    while True:
        try: time.sleep(0)
        except Exception: pass
"""
ALLOWED = """
def test_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
def test_pair():
    for end in socket.socketpair(): end.close()
def test_numbers(): assert socket.getaddrinfo("192.0.2.1", 80) and socket.getaddrinfo(None, 80)
def test_localhost(): assert socket.getaddrinfo("localhost", 80)
def test_yields(): time.sleep(0)
def test_waits_for_a_program(): subprocess.run([sys.executable, "-c", ""], timeout=60, check=True)
"""


@pytest.mark.parametrize(("tests", "word"), [(FORBIDDEN, "failed"), (ALLOWED, "passed")], ids=["forbidden", "allowed"])
def test_the_guards(tests: str, word: str, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent.parent / "conftest.py", tmp_path)
    (tmp_path / "test_guarded.py").write_text(HEAD + tests)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", ".", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    closing = done.stdout.splitlines()[-1]
    other = "passed" if word == "failed" else "failed"
    assert f"{tests.count('def test_')} {word}" in closing, done.stdout
    assert other not in closing, done.stdout

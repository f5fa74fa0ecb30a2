"""The command `poolkit explore`: it serves the page, ends at once, and says what goes wrong."""

import errno
import html
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from conftest import PATIENCE
from poolkit.cli import main

pytest.importorskip("torch")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from poolkit.explore import browser, export, server  # noqa: E402
from views import PICTURES, ask, only  # noqa: E402


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The command in a process of its own: its host, its port and its key."""
    folder = tmp_path_factory.mktemp("explore")
    command = [sys.executable, "-m", "poolkit", "explore", "soft:beta=2", "max", "--no-open"]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, cwd=folder)
    line = process.stdout.readline()
    found = re.fullmatch(
        r"explorer: http://(127\.0\.0\.1):(\d+)/\?key=([\w-]{32})#method=soft:beta=2&other=max\n", line
    )
    assert found, line + (folder / "said").read_text()
    yield found[1], int(found[2]), found[3]
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and rest == "", "Ctrl-C ends it, and that is no error"
    said = (folder / "said").read_text()
    assert "ended" in said and found[3] not in said and "Traceback" not in said, said


def test_the_command_serves_the_page_and_its_views(running):
    status, page = ask(running, "GET", f"/?key={running[2]}", Cookie="")
    assert status == 200 and b"page.js" in page
    assert [ask(running, "GET", path)[0] for path in ("/page.js", "/page.css", "/start")] == [200, 200, 200]
    status, answer = ask(running, "POST", "/scene", json.dumps({"cells": PICTURES["numbers"], "method": "soft"}))
    assert status == 200 and json.loads(answer)["answers"] == [only("numbers", method="soft")]


RAW = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"CONNECT evil.example:80 HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"POST /scene HTTP/1.1\r\nHost: HERE\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"POST /scene HTTP/1.1\r\nHost: HERE\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"GET /%00%2e%2e/etc/passwd HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"GET /../../../etc/passwd HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: HERE\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: YWJj\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    b"\xff" * 1000 + b"\r\n\r\n",
]  # fmt: skip


def test_an_answer_does_not_wait_for_more():
    with server.listen("127.0.0.1", 0) as found:
        assert found.proto == socket.IPPROTO_TCP, "asyncio leaves Nagle's waiting on: 40 ms for each view"


def test_raw_bytes_end_no_server(running):
    host, port, key = running
    allowed = f"{host}:{port}\r\nCookie: poolkit-{port}={key}\r\nOrigin: http://{host}:{port}"
    allowed += "\r\nContent-Type: application/json"
    for raw in RAW:
        answer = b""
        with socket.create_connection((host, port), timeout=PATIENCE) as connected:
            connected.sendall(raw.replace(b"HERE", allowed.encode()))
            try:
                answer = connected.recv(100_000)
            except ConnectionResetError:  # what was not read of a long line may overtake the answer
                assert len(raw) > 50_000
        usual = rb"(200|4\d\d)" if b"Upgrade" in raw else rb"4\d\d"  # who cannot upgrade may answer as usual
        assert re.match(rb"HTTP/1\.1 " + usual + rb" ", answer) or len(raw) > 50_000, (raw[:60], answer[:200])
        assert b"root:" not in answer
    assert ask(running, "GET", "/start")[0] == 200


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here")
def test_a_browser_shows_it(running, tmp_path, monkeypatch):
    host, port, key = running
    address = f"http://{host}:{port}/?key={key}#method=soft&other=lp:p=3&kernel=3&stride=2&padding=1&cell=1,2"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    files = []
    monkeypatch.setattr(webbrowser, "open", files.append)
    with browser.opened(address):  # through the file that leads there
        limit = time.monotonic() + PATIENCE
        while not files and time.monotonic() < limit:
            time.sleep(0.01)
        command += ["--virtual-time-budget=20000", "--dump-dom", *files]
        page = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE).stdout
    want = [
        only("numbers", method=m, kernel_size=3, stride=2, padding=1, cell=[1, 2])["cell"]["value"]
        for m in ("soft", "lp:p=3")
    ]
    assert f"output row 2, column 3: soft {want[0]:.4g}, lp:p=3 {want[1]:.4g}" in page
    assert "5 of 9 windows reach over the edge" in page and "Σ |xᵢ|ᵖ" in page and page.count("data-place") > 150


def test_what_cannot_be_explored_is_said(capsys):
    def refused(*words, code):
        assert main(["explore", "--no-open", *words]) == code
        return capsys.readouterr().err

    assert "one method or two" in refused("max", "avg", "min", code=2)
    assert "nearest: soft" in refused("sotf", code=2)
    assert "name the address" in refused("--host", "0.0.0.0", code=2)  # noqa: S104
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot be had" in refused("--port", str(taken.getsockname()[1]), code=1)


def test_what_is_not_installed_is_named():
    code = "import sys; sys.modules['uvicorn'] = None; from poolkit.cli import main; sys.exit(main(['explore']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "wants uvicorn" in done.stderr and 'pip install "poolkit[explore]"' in done.stderr


@pytest.mark.parametrize("host", ["0", "0x0", "0.0", "::", "[::]", "", "::ffff:0.0.0.0"])
def test_a_host_that_stands_for_every_address_is_refused(monkeypatch, capsys, host):
    monkeypatch.setattr(server, "serve", lambda at, found, net: found.close())
    assert main(["explore", "--no-open", "--host", host]) == 2
    assert "name the address" in capsys.readouterr().err


def test_what_to_do_about_a_host_that_cannot_be_had_is_said(monkeypatch, capsys):
    def refused(*words):
        assert main(["explore", "--no-open", *words]) == 1
        return capsys.readouterr().err

    for host in ("no-such.invalid", "a" * 70, "192.0.2.1"):
        for words in (["--host", host], ["--host", host, "--port", "8123"]):
            said = refused(*words)
            assert "--host takes an address" in said and "--port out" not in said
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "leave --port out" in refused("--port", str(taken.getsockname()[1]))

    def denied(host, port):
        raise OSError(errno.EACCES, "denied")

    monkeypatch.setattr(server, "listen", denied)
    assert "--port out" in refused("--port", "80") and "--port out" not in refused()


@pytest.mark.parametrize(
    "host, shown", [("127.1", "127.1"), ("LOCALHOST", "localhost"), ("127.0.0.2", "127.0.0.2"), ("::1", "[::1]")]
)
def test_a_host_of_this_machine_is_served_under_the_name_given(monkeypatch, capsys, host, shown):
    got = []
    monkeypatch.setattr(server, "serve", lambda at, found, net: got.append((at, found)))
    if host == "::1":
        try:
            server.listen("::1", 0).close()
        except OSError:
            pytest.skip("no IPv6 here")
    assert main(["explore", "--no-open", "--host", host]) == 0
    said, ((at, found),) = capsys.readouterr(), got
    with found:
        port = found.getsockname()[1]
        assert said.out.startswith(f"explorer: http://{shown}:{port}/?key=") and f"{shown}:{port}" in at.hosts
        assert "warning" not in said.err
        with socket.create_connection(found.getsockname()[:2], timeout=PATIENCE):
            pass


def test_a_host_that_others_reach_warns(monkeypatch, capsys):
    monkeypatch.setattr(server, "serve", lambda at, found, net: found.close())
    monkeypatch.setattr(server, "is_this_machine", lambda address: False)
    assert main(["explore", "--no-open"]) == 0
    assert "unencrypted" in capsys.readouterr().err
    monkeypatch.undo()
    assert not any(map(server.is_this_machine, ("192.168.0.7", "fe80::1%eth0", "2001:db8::1")))


def test_an_option_of_the_socket_shares_no_port_where_it_would(monkeypatch):
    with server.listen("127.0.0.1", 0) as found:
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) or os.name != "posix"
    monkeypatch.setattr(server.os, "name", "nt")
    with server.listen("127.0.0.1", 0) as found:
        assert not found.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


def test_a_browser_that_blocks_stops_nothing_and_its_command_line_holds_no_key(monkeypatch, capsys):
    opened, served = [], []
    is_there, go_on = threading.Event(), threading.Event()

    def blocks(address):
        opened.append((address, threading.current_thread().daemon))
        is_there.set()
        go_on.wait(PATIENCE)

    def serves(at, found, net):
        found.close()
        assert is_there.wait(PATIENCE), "nothing was opened"
        file = Path(url2pathname(urlsplit(opened[0][0]).path))
        served.append((file, at, file.read_text(), file.stat().st_mode))

    monkeypatch.setattr(webbrowser, "open", blocks)
    monkeypatch.setattr(server, "serve", serves)
    assert main(["explore", "soft", "max"]) == 0
    go_on.set()
    ((file, at, text, mode),) = served
    ((address, daemon),) = opened
    assert daemon and at.key not in address and not file.exists()
    assert os.name != "posix" or mode & 0o777 == 0o600
    printed = capsys.readouterr().out.split()[1]
    assert at.key in printed and f'content="0;url={html.escape(printed)}"' in text


SLOW = """
import sys, time
from poolkit.cli import main
from poolkit.explore import server

def slow(values):
    import torch

    sys.stderr.write("computing\\n")
    sys.stderr.flush()
    cells = torch.ones(1200, 1200, requires_grad=True)
    while time.sleep(WAIT) is None:  # WAIT 0: always amid torch's own code
        (cells @ cells).sum().backward()

server._scene = slow
sys.exit(main(["explore", "--no-open"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="no signals here")
@pytest.mark.parametrize("sent, wait", [("{}", 0), ("{}", 1000), (None, 0)], ids=["computing", "waiting", "reading"])
def test_the_command_ends_by_ctrl_c_whatever_it_does(tmp_path, sent, wait):
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW.replace("(WAIT)", f"({wait})")], stdout=subprocess.PIPE, stderr=said, text=True
        )
    found = re.search(r"//(127\.0\.0\.1):(\d+)/\?key=([\w-]+)", process.stdout.readline())
    host, port, key = found[1], int(found[2]), found[3]
    ask((host, port, key), "GET", "/start")
    with socket.create_connection((host, port), timeout=PATIENCE) as connected:
        head = f"POST /scene HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: poolkit-{port}={key}\r\n"
        head += f"Origin: http://{host}:{port}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        connected.sendall((head + (sent or "{")).encode())
        limit = time.monotonic() + PATIENCE
        while sent and "computing" not in (tmp_path / "said").read_text() and time.monotonic() < limit:
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)  # two seconds where nothing else runs
    said = (tmp_path / "said").read_text()
    assert process.returncode == 0 and said.split("\n", 1)[0] == "Ctrl-C ends it" and said.endswith("ended\n"), said
    assert "Traceback" not in said and "Cancel" not in said, said


def test_what_a_page_that_stands_alone_cannot_hold_is_refused_before_it_is_computed(monkeypatch, tmp_path, capsys):
    def never():
        raise AssertionError("it is computed")

    monkeypatch.setattr(export, "everything", never)
    file = str(tmp_path / "page.html")
    for words, said in [
        ([str(tmp_path / "none" / "page.html")], f"{tmp_path / 'none'}: there is no such folder"),
        ([str(tmp_path)], "is a folder"),
        ([file, "soft", "max"], f"such as {file}#method=soft&other=max"),
        ([file, "--run", str(tmp_path)], "leave --run out"),
        ([file, "--port", "8123"], "leave --port and --host out"),
        ([file, "--host", "localhost"], "leave --port and --host out"),
    ]:
        assert main(["explore", "--export", *words]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr(export, "everything", dict)
    assert main(["explore", "--export", file]) == 0
    assert "some seconds" in capsys.readouterr().err and "held" in Path(file).read_text()

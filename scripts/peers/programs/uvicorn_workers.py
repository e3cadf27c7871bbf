"""`uvicorn --workers 2` started from the command line answers requests by two processes and ends on SIGTERM."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


def ask(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return int(answer.read())


def main():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    prefix = os.environ["MANIPLE_PEERS_PREFIX"].split()
    options = ["--workers", "2", "--lifespan", "off", "--port", str(port)]
    server = subprocess.Popen([sys.executable, *prefix, "-m", "uvicorn", *options, "uvicorn_workers:app"])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(port)
                break
            except OSError:
                assert server.poll() is None, f"the server ended with {server.returncode}"
                assert time.monotonic() < deadline, "no answer"
                time.sleep(0.2)
        seen = set()
        while len(seen) < 2 and time.monotonic() < deadline:
            seen.add(ask(port))
        assert len(seen) == 2, seen
        assert server.pid not in seen
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(30)
    assert code in (0, -signal.SIGTERM), code


if __name__ == "__main__":
    main()

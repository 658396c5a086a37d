"""Real processes for the tests, on free ports. Each stops when its `with` block ends."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ["PROMPTKEEP_BIN"]
# Maximum wait for a process or a condition. A debug build on a busy machine is slow.
TIMEOUT_SECONDS = 60


def free_port():
    """Returns a free port, for programs that do not report the port they got."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(is_so, what):
    """Polls `is_so` until its result is truthy, and returns the result."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if answer := is_so():
                return answer
        time.sleep(0.1)
    raise AssertionError(f"timed out waiting for {what}")


@contextlib.contextmanager
def process(log, command, env=None):
    with log.open("wb") as out:
        child = subprocess.Popen(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT, env=env, cwd=log.parent)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(timeout=TIMEOUT_SECONDS)


def found(log, pattern):
    return until(lambda: re.search(pattern, re.sub(r"\x1b\[[0-9;]*m", "", log.read_text())), f"{pattern} in {log.name}")


@contextlib.contextmanager
def stand_in(folder):
    """Runs the stand-in provider of the client suites, and yields its address."""
    log = folder / "upstream.log"
    with process(log, [sys.executable, "-u", ROOT / "tests/clients/upstream.py"]):
        yield found(log, r"listening on (\S+)")[1]


@contextlib.contextmanager
def server(folder, config, env=None):
    """Runs promptkeep, and yields the addresses of its gRPC and HTTP ports."""
    log, file = folder / "promptkeep.log", folder / "promptkeep.toml"
    file.write_text(config)
    env = dict(os.environ, NO_COLOR="1", RUST_LOG="info", **(env or {}))
    with process(log, [BINARY, "serve", "--config", file], env):
        grpc, http = found(log, r"starting grpc=(\S+) http=(\S+)").groups()
        until(lambda: get(f"http://{http}/readyz"), "readiness")
        yield grpc, http


@contextlib.contextmanager
def redis(folder):
    """Runs an empty Redis without persistence, and yields its URL and the process."""
    port = free_port()
    log = folder / f"redis-{port}.log"
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with process(log, command) as child:
        found(log, "Ready to accept connections")
        yield f"redis://127.0.0.1:{port}", child


@contextlib.contextmanager
def prometheus(folder, config):
    """Runs Prometheus, and yields the root of its API."""
    log, file, port = folder / "prometheus.log", folder / "prometheus.yml", free_port()
    file.write_text(config)
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
    with process(log, command):
        api = f"http://127.0.0.1:{port}"
        until(lambda: get(f"{api}/-/ready"), "Prometheus")
        yield api


def get(url, headers=None):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as reply:
        return reply.read().decode()


def post(url, body, headers=None):
    headers = {"content-type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

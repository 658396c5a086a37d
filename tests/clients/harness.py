"""Runs the client suites against a real server and a stand-in provider, and stops both at the end."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Maximum time until a process prints its address. A debug build on a busy machine is slow to start.
START_SECONDS = 60

CONFIG = """
providers = [{{ name = "stand-in", base_url = "{upstream}/v1" }}]
models = [
  {{ id = "small", provider = "stand-in", tier = "cold", input_usd_per_mtok = 1.0, output_usd_per_mtok = 2.0, context_window = 100000 }},
  {{ id = "large", provider = "stand-in", tier = "hot", input_usd_per_mtok = 3.0, output_usd_per_mtok = 6.0, context_window = 100000 }},
]
tenants = [
  {{ name = "tests", api_key_env = "TESTS_KEY" }},
  {{ name = "limited", api_key_env = "LIMITED_KEY", rate_limit = 0.01 }},
]

[server]
grpc_listen = "127.0.0.1:0"
http_listen = "127.0.0.1:0"

[store]
kind = "memory"

[cache]
mode = "exact"

[upstream]
retries = 0
hedge_after = "off"
breaker_failures = 10
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("suites", nargs="*", choices=["python", "node", []])
    parser.add_argument("--bin", required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="promptkeep-clients-") as folder:
        sys.exit(run(options, Path(folder)))


def run(options, folder):
    started = []
    try:
        upstream = start(started, folder / "upstream.log", [sys.executable, HERE / "upstream.py"], r"listening on (\S+)")[0]
        config = folder / "promptkeep.toml"
        config.write_text(CONFIG.format(upstream=f"http://{upstream}"))
        grpc, http = serve(started, folder, options.bin, config, {"TESTS_KEY": "key-tests", "LIMITED_KEY": "key-limited"})
        open_config = folder / "open.toml"
        without_tenants = re.sub(r"tenants = \[.*?\n\]\n", "", config.read_text(), flags=re.S)
        open_config.write_text(without_tenants)
        open_grpc, open_http = serve(started, folder, options.bin, open_config, {})
        env = dict(
            os.environ,
            PROMPTKEEP_BIN=str(Path(options.bin).resolve()),
            PROMPTKEEP_GRPC=grpc,
            PROMPTKEEP_HTTP=http,
            OPEN_GRPC=open_grpc,
            OPEN_HTTP=open_http,
            UPSTREAM=f"http://{upstream}",
            PROMPTKEEP_API_KEY="key-tests",
            LIMITED_API_KEY="key-limited",
            PYTHONDONTWRITEBYTECODE="1",
            PYTHONPATH=str(generate(folder)),
            NODE_PATH=str(options.cache / "node" / "node_modules"),
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        )
        failed = [suite for suite in options.suites or ["python", "node"] if run_suite(suite, env) != 0]
        if failed:
            print_logs(folder)
        return 1 if failed else 0
    finally:
        stop(started)


def run_suite(suite, env):
    if suite == "python":
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "python"]
    else:
        command = [shutil.which("node"), "--test", *sorted((HERE / "node").glob("*.test.js"))]
    return subprocess.run(list(map(str, command)), env=env, cwd=ROOT).returncode


def generate(folder):
    """Generates the contract's stubs as a Python service would, and returns their folder."""
    to = folder / "stubs"
    to.mkdir()
    proto = "promptkeep/v1/promptkeep.proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ROOT / "proto", f"--python_out={to}", f"--grpc_python_out={to}", proto]
    subprocess.run(list(map(str, command)), check=True)
    return to


def serve(started, folder, binary, config, env):
    log = folder / f"{config.stem}.log"
    env = dict(os.environ, NO_COLOR="1", RUST_LOG="warn,promptkeep::cli=info", **env)
    grpc, http = start(started, log, [binary, "serve", "--config", config], r"starting grpc=(\S+) http=(\S+)", env)
    wait_until_listening(started[-1], http)
    return grpc, http


def start(started, log, command, listening, env=None):
    """Starts a process, and returns the groups of `listening` once its output matches."""
    with log.open("wb") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT, env=env, cwd=log.parent)
    started.append(process)
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        found = re.search(listening, re.sub(r"\x1b\[[0-9;]*m", "", log.read_text()))
        if found:
            return found.groups()
        time.sleep(0.02)
    raise SystemExit(f"did not start: {command[0]}\n{log.read_text()}")


def wait_until_listening(process, address):
    import urllib.request

    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=5) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.02)
    raise SystemExit("the server did not become ready")


def stop(started):
    for process in reversed(started):
        process.terminate()
    for process in reversed(started):
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def print_logs(folder):
    for log in sorted(folder.glob("*.log")):
        print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")


if __name__ == "__main__":
    main()

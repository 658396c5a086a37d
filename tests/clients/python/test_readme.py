"""README.md is true: every command in it runs, every configuration is valid, every name exists.

A new command in it makes `test_every_command_is_known` fail until the command is listed here.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import grpc
import pytest
from promptkeep.v1 import promptkeep_pb2 as pb
from promptkeep.v1 import promptkeep_pb2_grpc as pb_grpc
from readme import MARKED, PROSE, ROOT, TEXT, blocks, commands, mentioned

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import START_SECONDS, start, stop, wait_until_listening  # noqa: E402

BINARY = os.environ["PROMPTKEEP_BIN"]
SERVE = "target/release/promptkeep serve --config promptkeep.toml"

# Commands that `test_every_command_prints_what_it_should` runs, in the README's order and in one folder, against the server that `SERVE` started.
# The output of each must match the pattern.
RUN = {
    "export GLOBAL_API_KEY=sk-…": "",
    "target/release/promptkeep check-config promptkeep.toml": "promptkeep.toml: ",
    "PromptCache/Complete": '"outcome": "OUTCOME_UPSTREAM"',
    "curl http://127.0.0.1:8080/v1/chat/completions": r"x-promptkeep-outcome: exact[^{]*\{.*you said: How do I reset",
    "PromptCache/Store": '"entryId": ',
    "PromptCache/Lookup": '"outcome": "OUTCOME_EXACT"',
    "target/release/promptkeep replay traffic.jsonl --config promptkeep.toml": r"semantic +1 +50.0 %.*saved",
    "target/release/promptkeep tune labelled.jsonl --out served.jsonl": r"2 requests, 1 \(50.0 %\).*estimate of wrong hits",
    "target/release/promptkeep tune labelled.jsonl --verifier 0.02,0.05": r"verifier +.*simulated by the labels",
    "promptkeep model pull": "MiniLM",
    "promptkeep health": "SERVING",
}
# Commands that have a test or a fixture of their own.
OWN = {
    SERVE: "fixture `home`",
    "target/release/promptkeep stats --watch": "test_watched_stats_are_printed_again",
    "promptkeep simulate-models": "test_simulated_models_answer",
}
# Commands that are not run here, each with what covers it.
ELSEWHERE = {
    "cargo run --release -- demo": "test_the_demo_reports_as_shown runs the binary under test",
    "cargo run -- demo --exit": "test_the_demo_reports_as_shown",
    "./test": "runs this test",
    "./test coalesce": "a part of what ./test runs",
    "cargo build --release": "the Dockerfile runs it; the tests run their own build of the binary",
    "cargo test --lib route::local -- --nocapture": "one of the tests that ./test runs",
    "target/release/promptkeep tune pairs.jsonl --verify --config promptkeep.toml": "tune_measures_how_often_the_verifier_errs in tests/it/cli.rs",
    "docker compose up --build": "tests/monitoring/test_compose.py, without containers",
    "just bench": "cargo bench; test_every_bench_exists",
    "just lint": "what .ci/run checks before it runs this test",
    "just ci": ".ci/run, which runs this test",
    "cargo bench --bench NAME": "test_every_bench_exists",
}

LABELLED = [
    {"id": "1", "text": "How do I reset my password?", "class": "reset", "answer": "Open Settings, then Security."},
    {"id": "2", "text": "how do i reset my password", "class": "reset", "answer": "Open Settings, then Security."},
]


def key(known, command):
    """Returns the entry of `known` for this command, or None. Calls by curl and grpcurl are known by what they call."""
    if command in known:
        return command
    words = command.split()
    if words[0] not in ("curl", "grpcurl"):
        return None
    called = [part for part in known if part.removeprefix("curl ") in words or f"promptkeep.v1.{part}" in words]
    return called[0] if called else None


def run(command, home, **options):
    """Runs the command in bash, as a user would type it. Ports and the folder are those of `home`."""
    here = command.replace("127.0.0.1:50051", home.grpc).replace("127.0.0.1:8080", home.http)
    if here.startswith("promptkeep "):
        here = f"target/release/{here}"
    if "promptkeep stats" in here or "promptkeep health" in here:
        here += f" --server http://{home.grpc}"
    return subprocess.run(["bash", "-euo", "pipefail", "-c", here], cwd=home.folder, env=home.env, text=True, capture_output=True, timeout=120, **options)


def config(block, **base_urls):
    """Returns the block's text with the given base URLs of providers."""
    text = block.text
    for name, url in base_urls.items():
        text, changed = re.subn(rf'(name = "{name}",\s+base_url = )"[^"]*"', rf'\1"{url}"', text)
        assert changed == 1, f"README.md:{block.line} has no provider {name}"
    return text


def toml_with(what):
    found = [block for block in blocks("toml") if what in block.text]
    assert len(found) == 1, what
    return found[0]


def refusing():
    """Returns a base URL where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


@pytest.fixture(scope="module")
def stand_in():
    return f"{os.environ['UPSTREAM']}/v1"


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Starts servers. Each has a folder laid out as the README describes it, with the binary at its path."""
    started = []

    def one(text):
        folder = tmp_path_factory.mktemp("readme")
        (folder / "target/release").mkdir(parents=True)
        (folder / "target/release/promptkeep").symlink_to(BINARY)
        (folder / "promptkeep.toml").write_text(text)
        keys = dict.fromkeys(re.findall(r'_env = "(\w+)"', text), "sk-test")
        listen = {f"PROMPTKEEP_SERVER__{port}_LISTEN": "127.0.0.1:0" for port in ("GRPC", "HTTP")}
        env = dict(os.environ, **keys, **listen, NO_COLOR="1", RUST_LOG="warn,promptkeep::cli=info")
        # With `exec`, stopping the shell stops the server.
        command = ["bash", "-c", f"exec {SERVE}"]
        addresses = start(started, folder / "serve.log", command, r"starting grpc=(\S+) http=(\S+)", env)
        wait_until_listening(started[-1], addresses[1])
        return SimpleNamespace(folder=folder, env=env, grpc=addresses[0], http=addresses[1])

    yield one
    stop(started)


@pytest.fixture(scope="module")
def home(serve, stand_in):
    """A reader who has followed the README up to `serve`, and has written the files that later commands read."""
    home = serve(config(toml_with("api.openai.com"), **{"global": stand_in}))
    (home.folder / "traffic.jsonl").write_text(blocks("json")[0].text)
    (home.folder / "labelled.jsonl").write_text("\n".join(map(json.dumps, LABELLED)))
    return home


def client(home):
    return pb_grpc.PromptCacheStub(grpc.insecure_channel(home.grpc))


def prompt(text, **more):
    return pb.Prompt(messages=[pb.Message(role="user", content=text)], **more)


# === Commands ===


def test_every_command_is_known():
    known = [*RUN, *OWN, *ELSEWHERE]
    unknown = [command for command in [*commands(), *mentioned()] if not key(known, command)]
    assert not unknown, f"{unknown}: list them in this file, with what they print or what covers them"
    text = [*commands(), *mentioned()]
    gone = set(known) - {key(known, command) for command in text}
    assert not gone, f"{gone}: no longer in the README"


def test_every_command_prints_what_it_should(home):
    for command in [command for command in [*commands(), *mentioned()] if key(RUN, command) and not key(OWN, command)]:
        done = run(command, home)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert re.search(RUN[key(RUN, command)], done.stdout, re.S), f"{command}\n{done.stdout}{done.stderr}"
    rows = [json.loads(row) for row in (home.folder / "served.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["1", "2"]


def test_watched_stats_are_printed_again(home):
    command = [home.folder / "target/release/promptkeep", "stats", "--watch", "--server", f"http://{home.grpc}"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=home.env)
    # Kills a process that prints nothing more, which also ends the reading.
    deadline = Timer(60, watching.kill)
    deadline.start()
    try:
        screens = 0
        while screens < 2:
            line = watching.stdout.readline()
            assert line, "it ended, or printed nothing for a minute"
            screens += "hit ratio" in line
    finally:
        deadline.cancel()
        watching.kill()
        watching.communicate()


def test_simulated_models_answer(tmp_path):
    started = []
    try:
        command = [BINARY, "simulate-models", "--listen", "127.0.0.1:0"]
        (url,) = start(started, tmp_path / "models.log", command, r"simulated models at (\S+)")
        with urllib.request.urlopen(f"{url}/models", timeout=30) as reply:
            assert reply.status == 200
    finally:
        stop(started)


def test_the_demo_reports_as_shown():
    """Compares headings with a short demo's: lines of the README's block that begin with a capital and have no figures."""
    done = subprocess.run([BINARY, "demo", "--requests", "60", "--exit"], text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (shown,) = blocks("output")
    headings = [line for line in shown.text.splitlines() if re.match(r"[A-Z][^\d]*$", line)]
    assert "How they were answered" in headings
    # With so few requests, the report does not show how the cache learned, and may show no near miss.
    missing = [line for line in headings if line not in done.stdout and not line.startswith("How it learned")]
    assert not missing, done.stdout


def test_every_bench_exists():
    benches = {bench["name"] for bench in tomllib.loads((ROOT / "Cargo.toml").read_text())["bench"]}
    named = set(re.findall(r"--bench ([a-z]+)", TEXT))
    assert named and named <= benches


# === Configurations ===


def test_every_configuration_is_valid(tmp_path):
    """Checks each block alone, except that the block about regions extends the one about Redis."""
    for block in blocks("toml"):
        text = block.text
        if "store.peers" in text:
            text = toml_with('kind = "redis"').text + text
        file = tmp_path / "promptkeep.toml"
        file.write_text(text)
        done = subprocess.run([BINARY, "check-config", file], text=True, capture_output=True, timeout=60)
        assert done.returncode == 0, f"README.md:{block.line}\n{done.stdout}"


def test_the_fallback_is_the_other_provider_and_then_the_other_model(serve, stand_in):
    """The order is `small` at `near`, `small` at `far`, then `large`."""
    home = serve(config(toml_with('name = "near"'), near=refusing(), far=stand_in))
    cache = client(home)
    for text, expected in [
        ("A?", [("small", "near"), ("small", "far")]),
        ("fail-503@small", [("small", "near"), ("small", "far"), ("large", "far")]),
    ]:
        reply = cache.Complete(pb.CompleteRequest(prompt=prompt(text, model="cold")), timeout=60)
        tried = [(attempt.model, attempt.provider) for attempt in reply.attempts]
        assert list(dict.fromkeys(tried)) == expected, reply
        assert reply.attempts[-1].result == "ok" and reply.completion.model == expected[-1][0]


def test_budgets_apply_as_configured(serve, stand_in):
    first, budgets = config(toml_with("api.openai.com"), **{"global": stand_in}), toml_with("max_wrong_hits")
    cache = client(serve(first + budgets.text))
    for namespace, rate in [("", 0.01), ("billing", 0.001)]:
        reply = cache.Explain(pb.LookupRequest(prompt=prompt("A?", namespace=namespace)), timeout=60)
        assert (reply.mode, round(reply.max_error_rate, 6), round(reply.max_wrong_hits, 6)) == ("bounded", rate, 0.05)


# === Names ===


def example_keys():
    """Yields every configuration key from promptkeep.example.toml, which a Rust test checks for completeness."""
    section = ""
    for line in (ROOT / "promptkeep.example.toml").read_text().splitlines():
        if header := re.match(r"#?\[+([a-z._]+)\]+", line):
            section = header[1]
        elif key := re.match(r"#?([a-z_0-9]+) = ", line):
            yield f"{section}.{key[1]}"


def test_every_key_exists(tmp_path):
    known = set(example_keys())
    sections = {key.split(".")[0] for key in known}
    named = [name for name in MARKED if re.match(r"[a-z_]+\.[a-z_.]+($| = )", name) and name.split(".")[0] in sections]
    assert len(named) > 10
    unknown = [name for name in named if name.split(" = ")[0] not in known]
    assert not unknown
    # Values must be valid too, as a file and as an environment variable.
    values = [name for name in MARKED if re.match(r"[a-z_.]+ = ", name)]
    assert values
    file = tmp_path / "promptkeep.toml"
    for value in values:
        file.write_text(value if "." in value.split(" = ")[0] else f"[cache]\n{value}")
        done = subprocess.run([BINARY, "check-config", "--json", file], text=True, capture_output=True, timeout=60)
        problems = [problem for problem in json.loads(done.stdout)["problems"] if "is required when" not in str(problem)]
        assert not problems, value
    variables = [name.split("=") for name in MARKED if name.startswith("PROMPTKEEP_")]
    assert variables
    file.write_text("")
    for name, value in variables:
        for given, status in [(value, 0), ("neither", 1)]:
            done = subprocess.run([BINARY, "check-config", file], env={**os.environ, name: given}, capture_output=True, timeout=60)
            assert done.returncode == status, f"{name}={given}: {done.stdout}"


def test_every_metric_exists():
    files = [file for folder in ("src", "crates") for file in (ROOT / folder).rglob("*.rs") if "metrics" in file.as_posix()]
    registered = "".join(file.read_text() for file in files)
    named = [name.removeprefix("promptkeep_") for name in MARKED if name.startswith("promptkeep_")]
    assert named
    for name in named:
        assert f'"{name}"' in registered or f'"{name.removesuffix("_total")}"' in registered, name


def test_every_name_of_the_contract_exists():
    proto = (ROOT / "proto/promptkeep/v1/promptkeep.proto").read_text()
    named = [name for name in MARKED if re.fullmatch(r"(OUTCOME|VERDICT|KEEP)_[A-Z_]+", name)]
    assert named
    calls = ["Complete", "CompleteStream", "Lookup", "Store", "Explain", "Invalidate", "Feedback", "GetStats"]
    calls = [f"rpc {call}(" for call in calls if call in MARKED]
    assert calls
    for name in [*named, *calls]:
        assert name in proto, name


def test_every_link_has_a_target():
    links = re.findall(r"\]\(([^)]+)\)", PROSE)
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_every_path_answers(home):
    """Covers the paths that are fetched with GET; API calls are among the commands."""
    paths = re.findall(r"`(?:http://127.0.0.1:8080)?(/[a-z]*)`", PROSE)
    assert {"/metrics", "/healthz", "/readyz", "/"} <= set(paths)
    for path in paths:
        with urllib.request.urlopen(f"http://{home.http}{path}", timeout=30) as reply:
            assert reply.status == 200, path


def test_every_indented_line_is_in_a_command_block():
    indented = [line for line in PROSE.splitlines() if line.startswith("    ")]
    assert sum(block.text.count("\n") for block in blocks("shell")) == len(indented)


def test_no_merge_conflict_is_left():
    for file in ["README.md", "ARCHITECTURE.md"]:
        assert not re.search(r"^(<{7}|={7}|>{7}|\|{7})( |$)", (ROOT / file).read_text(), re.M), file


def test_a_command_is_known_only_as_a_whole():
    """The check once accepted `serve` with an unlisted flag, and other commands with a listed prefix."""
    known = [*RUN, *OWN, *ELSEWHERE]
    for command in [f"{SERVE} --new-flag", "promptkeep health --all", "cargo run -- demo --exit --json", "curl http://127.0.0.1:8080/v1/chat"]:
        assert key(known, command) is None, command

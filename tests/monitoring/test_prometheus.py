"""A real Prometheus that scrapes real servers, with the alert rules and the Grafana dashboard of deploy/."""

import itertools
import json
import math
import os
import re
import subprocess
import tempfile
import threading
import urllib.parse
from pathlib import Path

import pytest
import yaml
from processes import BINARY, ROOT, get, post, prometheus, redis, server, stand_in, until

RULES = ROOT / "deploy/prometheus/rules.yml"
CONFIG = ROOT / "deploy/prometheus/prometheus.yml"
BOARD = ROOT / "deploy/grafana/dashboards/promptkeep.json"
KEY = {"authorization": "Bearer key-of-the-shop"}
OPERATOR = {"authorization": "Bearer key-of-the-operator"}
ENV = {"SHOP_KEY": "key-of-the-shop", "OPERATOR_KEY": "key-of-the-operator"}

SERVER = """
providers = [{{ name = "stand-in", base_url = "http://{upstream}/v1", region = "here" }}]
models = [
  {{ id = "small", provider = "stand-in", tier = "cold", input_usd_per_mtok = 100.0, output_usd_per_mtok = 200.0, context_window = 100000 }},
  {{ id = "large", provider = "stand-in", tier = "hot", input_usd_per_mtok = 1000.0, output_usd_per_mtok = 2000.0, context_window = 100000 }},
  {{ id = "checker", provider = "stand-in", tier = "economy", input_usd_per_mtok = 0.01, output_usd_per_mtok = 0.01, context_window = 100000 }},
]
tenants = [{{ name = "shop", api_key_env = "SHOP_KEY", budget_usd_per_day = 100.0 }}]

[server]
grpc_listen = "127.0.0.1:0"
http_listen = "127.0.0.1:0"

[store]
kind = "memory"

[cache]
mode = "static"

[routing]
default = "small"

[upstream]
retries = 0
hedge_after = "off"

[dashboard]
api_key_env = "OPERATOR_KEY"
"""

REPLICATED = """\
kind = "redis"
url = "{own}"

[[store.peers]]
region = "there"
url = "{peer}"\
"""

# Outcomes: upstream, exact, semantic, upstream, upstream because the guard sees the opposite, error.
TRAFFIC = [
    "How do I reset my password?",
    "How do I reset my password?",
    "How can I reset my password?",
    "How do I enable dark mode?",
    "How do I disable dark mode?",
    "fail-500 please",
]


class Watched:
    """A server, its traffic, and the Prometheus that scrapes it."""

    def __init__(self, folder, upstream, addresses, api):
        self.folder, self.upstream, (self.grpc, self.http), self.api = folder, upstream, addresses, api

    def ask(self, text, http=None):
        body = {"model": "small", "stream": True, "messages": [{"role": "user", "content": text}]}
        return post(f"http://{http or self.http}/v1/chat/completions", body, KEY)[0]

    def query(self, expression):
        """Returns the finite values of an instant query."""
        url = f"{self.api}/api/v1/query?query={urllib.parse.quote(expression)}"
        answer = json.loads(get(url))
        assert answer["status"] == "success", answer
        result = answer["data"]["result"]
        values = [float(result[1])] if answer["data"]["resultType"] == "scalar" else [float(of["value"][1]) for of in result]
        return [value for value in values if math.isfinite(value)]

    def stats(self):
        command = [BINARY, "stats", "--json", "--server", f"http://{self.grpc}"]
        env = dict(os.environ, PROMPTKEEP_API_KEY="key-of-the-shop")
        return json.loads(subprocess.run(command, env=env, check=True, capture_output=True).stdout)

    def reports_wrong_hit(self):
        snapshot = json.loads(get(f"http://{self.http}/dashboard/snapshot/15m", OPERATOR))
        hit = {"hit": snapshot["hits"][0]["id"]}
        assert post(f"http://{self.http}/dashboard/wrong-hit", hit, OPERATOR)[0] == 200


@pytest.fixture(scope="module")
def watched():
    with tempfile.TemporaryDirectory(prefix="promptkeep-monitoring-") as folder:
        folder = Path(folder)
        with stand_in(folder) as upstream, server(folder, SERVER.format(upstream=upstream), ENV) as (grpc, http):
            config = yaml.safe_load(CONFIG.read_text())
            # The shipped configuration, but it scrapes this server, and more often.
            config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
            config["rule_files"] = [str(RULES)]
            more = folder / "more.json"
            more.write_text("[]")
            config["scrape_configs"][0] |= {"static_configs": [{"targets": [http]}], "file_sd_configs": [{"files": [str(more)]}]}
            with prometheus(folder, yaml.safe_dump(config)) as api:
                watched = Watched(folder, upstream, (grpc, http), api)
                # The first scrape must see the counters at zero, or their first increase would be lost.
                until(lambda: watched.query('promptkeep_requests_total{outcome="exact"}'), "the first scrape")
                for _ in range(3):
                    for text in TRAFFIC:
                        watched.ask(text)
                    watched.query("up")
                watched.reports_wrong_hit()
                yield watched


@pytest.fixture(scope="module")
def busy(watched):
    """`watched` with constant traffic, because a rate needs counters that move. A second server learns, stores its entries
    in Redis, and reads those of another region."""
    folder = watched.folder / "learning"
    folder.mkdir()
    ended = threading.Event()

    def keep_asking(http):
        for n in itertools.count():
            for text in [*TRAFFIC, "What is the weather like today?"]:
                watched.ask(f"{text} ({n})")
                watched.ask(f"{text} ({n})", http)
            if ended.wait(0.1):
                return

    verifying = '"bounded"\n\n[cache.verify]\nmode = "background"'
    learning = SERVER.format(upstream=watched.upstream).replace('"static"', verifying)
    with redis(folder) as (own, _), redis(folder) as (peer, watched.peer):
        learning = learning.replace('kind = "memory"', REPLICATED.format(own=own, peer=peer))
        with server(folder, learning, ENV) as (_, http):
            (watched.folder / "more.json").write_text(json.dumps([{"targets": [http]}]))
            asking = threading.Thread(target=keep_asking, args=[http])
            asking.start()
            yield watched
            ended.set()
            asking.join()


def total(watched, expression):
    return sum(watched.query(expression))


def test_the_sums_of_prometheus_equal_the_ledger(watched):
    stats = watched.stats()
    answered = {name: n for name, n in stats["requests"].items() if name not in ("stored", "error")}
    assert answered["exact"] > 0 and answered["semantic"] > 0 and stats["requests"]["error"] > 0, stats
    until(lambda: total(watched, "promptkeep_requests_total") == sum(stats["requests"].values()), "the last scrape")
    hits = 'sum(promptkeep_requests_total{outcome=~"exact|semantic|coalesced"})'
    ratio = total(watched, hits + ' / sum(promptkeep_requests_total{outcome!~"stored|error"})')
    assert ratio == pytest.approx(stats["hit_ratio"])
    for name in ("cost_usd", "saved_usd", "hot_tier_usd"):
        assert total(watched, f"promptkeep_{name}_total") == pytest.approx(stats[name]), name
        assert stats[name] > 0
    assert total(watched, "promptkeep_late_answers_total") == stats["late_answers"]
    for outcome, n in stats["requests"].items():
        assert total(watched, f'promptkeep_requests_total{{outcome="{outcome}"}}') == n
        assert total(watched, f'promptkeep_request_seconds_count{{outcome="{outcome}"}}') == n
    for reason, n in stats["misses_by_reason"].items():
        assert total(watched, f'promptkeep_semantic_misses_total{{reason="{reason}"}}') == n
    small = next(model for model in stats["models"] if model["model"] == "small")
    for direction, tokens in (("input", small["prompt_tokens"]), ("output", small["completion_tokens"])):
        assert total(watched, f'promptkeep_tokens_total{{model="small",direction="{direction}"}}') == tokens
    assert total(watched, 'promptkeep_feedback_total{verdict="wrong_hit",outcome="semantic"}') == 1


def test_promtool_finds_no_problem_in_the_metrics(watched):
    page = get(f"http://{watched.http}/metrics")
    checked = subprocess.run(["promtool", "check", "metrics"], input=page.encode(), capture_output=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_both_text_formats_have_equal_samples(watched):
    def names(page):
        return {line.split("{")[0].split(" ")[0] for line in page.splitlines() if not line.startswith("#")}

    url = f"http://{watched.http}/metrics"
    openmetrics = get(url, {"accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.endswith("# EOF\n") and "# EOF" not in get(url)
    assert names(openmetrics) == names(get(url))


@pytest.mark.parametrize("command", [["rules", RULES], ["config", CONFIG]])
def test_promtool_accepts_rules_and_configuration(command):
    subprocess.run(["promtool", "check", *map(str, command)], check=True, capture_output=True)


def board_queries():
    def targets(panels):
        for panel in panels:
            yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))
            yield from targets(panel.get("panels", []))

    return list(targets(json.loads(BOARD.read_text())["panels"]))


def rule_queries():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [(rule.get("alert") or rule["record"], rule["expr"]) for group in groups for rule in group["rules"]]


def without_comparison(expression):
    """Makes comparisons return 0 or 1. An alert that does not fire has no result; with `bool` it has one if both sides do."""
    return re.sub(r" (==|!=|<=|>=|<|>) (?!bool)", r" \1 bool ", expression)


@pytest.mark.parametrize(("title", "expression"), board_queries())
def test_every_query_of_the_dashboard_has_data(busy, title, expression):
    for variable, value in (("$__rate_interval", "1m"), ("$__range", "1h"), ("$instance", ".*")):
        expression = expression.replace(variable, value)
    assert "$" not in expression
    until(lambda: busy.query(expression), f"{title}: {expression}")


@pytest.mark.parametrize(("name", "expression"), rule_queries())
def test_every_query_of_the_rules_has_data(busy, name, expression):
    until(lambda: busy.query(without_comparison(expression)), f"{name}: {expression}")


def test_the_lag_behind_an_unreachable_region_grows(busy):
    lag = 'max by (peer) (promptkeep_replication_lag_seconds{peer="%s"}) %s 0'
    for peer in ("local", "there"):
        until(lambda: busy.query(lag % (peer, "==")), f"no lag behind {peer}")
    busy.peer.terminate()
    until(lambda: busy.query(lag % ("there", ">")), "a lag")

"""docker-compose.yml and Dockerfile, without a container engine: files, ports and names agree with each other, and the
commands of the containers run here as written."""

import os
import re
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import yaml
from processes import BINARY, ROOT, found, free_port, get, post, process, until

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
REPLICAS = [name for name in SERVICES if name.startswith("promptkeep-")]
CONFIG = (ROOT / "deploy/promptkeep.toml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def setting(name):
    return re.search(rf'^{name} = "(.*)"$', CONFIG, re.M)[1]


def port(address):
    return address.rsplit(":", 1)[1]


def test_every_file_and_volume_exists():
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, inside = volume.split(":")[:2]
            assert inside.startswith("/")
            known = (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]
            assert known, f"{name}: {source}"
        for needed in service.get("depends_on", {}):
            assert needed in SERVICES, f"{name} needs {needed}"


def test_each_port_is_published_once_and_on_this_machine_only():
    published = [mapping for service in SERVICES.values() for mapping in service.get("ports", [])]
    assert all(mapping.startswith("127.0.0.1:") for mapping in published)
    outside = [mapping.split(":")[1] for mapping in published]
    assert len(outside) == len(set(outside))


def test_ports_and_paths_agree_with_the_configuration():
    grpc, http = port(setting("grpc_listen")), port(setting("http_listen"))
    for name in REPLICAS:
        assert {mapping.split(":")[2] for mapping in SERVICES[name]["ports"]} == {grpc, http}
        assert ["serve", "--config", "/etc/promptkeep.toml"] == SERVICES[name]["command"]
        assert "./deploy/promptkeep.toml:/etc/promptkeep.toml:ro" in SERVICES[name]["volumes"]
    assert f"EXPOSE {grpc} {http}" in DOCKERFILE
    assert re.search(r"PROMPTKEEP_STORE__PATH=(\S+)", DOCKERFILE)[1] == re.search(r"^VOLUME (\S+)$", DOCKERFILE, re.M)[1]
    models = SERVICES["models"]["command"]
    assert f"http://models:{port(models[-1])}/v1" in CONFIG


def test_the_replicas_share_a_redis_that_is_not_published_and_keeps_its_data():
    assert (setting("kind"), setting("url")) == ("redis", "redis://redis:6379")
    assert all(SERVICES[name]["depends_on"]["redis"] == {"condition": "service_healthy"} for name in REPLICAS)
    redis = SERVICES["redis"]
    assert "ports" not in redis and "--port" not in redis["command"]
    # The folder in which the image keeps its data.
    assert [volume.split(":")[1] for volume in redis["volumes"]] == ["/data"]


def test_prometheus_and_grafana_find_each_other_and_the_replicas():
    http = port(setting("http_listen"))
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert scrape[0]["static_configs"][0]["targets"] == [f"{name}:{http}" for name in REPLICAS]
    provisioning = ROOT / "deploy/grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["url"] == f"http://prometheus:{SERVICES['prometheus']['ports'][0].split(':')[2]}"
    board = (ROOT / "deploy/grafana/dashboards/promptkeep.json").read_text()
    assert f'"uid": "{source["uid"]}"' in board
    folder = yaml.safe_load((provisioning / "dashboards/promptkeep.yml").read_text())["providers"][0]["options"]["path"]
    assert f"./deploy/grafana/dashboards:{folder}:ro" in SERVICES["grafana"]["volumes"]


def test_the_image_runs_without_root_and_checks_its_health():
    final = DOCKERFILE.split("\nFROM ")[-1]
    assert re.search(r"^USER (?!root|0)\S+$", final, re.M)
    assert 'ENTRYPOINT ["promptkeep"]' in final and "HEALTHCHECK" in final
    for variable in re.findall(r"PROMPTKEEP_\w+", final):
        section, key = variable.removeprefix("PROMPTKEEP_").lower().split("__")
        example = (ROOT / "promptkeep.example.toml").read_text()
        assert re.search(rf"^\[{section}\].*?^#?{key} = ", example, re.M | re.S), variable


def test_the_configuration_is_valid():
    checked = subprocess.run([BINARY, "check-config", ROOT / "deploy/promptkeep.toml"], capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def run_redis(running, folder):
    """Runs Redis as the container does, on a free port. Returns its address once the container's health check passes."""
    service, at = SERVICES["redis"], free_port()
    running.enter_context(process(folder / "redis.log", [*service["command"], "--bind", "127.0.0.1", "--port", at]))
    check, *arguments = service["healthcheck"]["test"][1:]
    healthy = [check, "-p", str(at), *arguments]
    until(lambda: subprocess.run(healthy, capture_output=True).returncode == 0, "Redis")
    return f"127.0.0.1:{at}"


def run_replica(running, folder, name, file):
    """Runs a replica as the container does. Returns its HTTP address once it is healthy and ready."""
    log = folder / f"{name}.log"
    command = [BINARY, *(str(file) if part == "/etc/promptkeep.toml" else part for part in SERVICES[name]["command"])]
    running.enter_context(process(log, command, dict(os.environ, NO_COLOR="1")))
    grpc, http = found(log, r'"grpc":"(\S+?)"')[1], found(log, r'"http":"(\S+?)"')[1]
    health = [BINARY, *SERVICES[name]["healthcheck"]["test"][2:], "--server", f"http://{grpc}"]
    until(lambda: subprocess.run(health, capture_output=True).returncode == 0, "health")
    until(lambda: get(f"http://{http}/readyz"), "readiness")
    return http


def sum_of(metrics, series):
    return sum(float(value) for value in re.findall(rf"^{series} (\S+)$", metrics, re.M))


def test_the_commands_of_the_containers_run_and_one_replica_serves_the_answer_of_another():
    """Runs entrypoints and commands as written, with this machine's folders and ports."""
    with tempfile.TemporaryDirectory(prefix="promptkeep-compose-") as folder, ExitStack() as running:
        folder = Path(folder)
        models = [BINARY, *SERVICES["models"]["command"]]
        models[-1] = f"127.0.0.1:{free_port()}"
        running.enter_context(process(folder / "models.log", models))
        found(folder / "models.log", "simulated models at")
        config = CONFIG.replace("models:9000", models[-1]).replace("redis:6379", run_redis(running, folder))
        file = folder / "promptkeep.toml"
        file.write_text(re.sub(r'"0\.0\.0\.0:\d+"', '"127.0.0.1:0"', config))
        first, second = (run_replica(running, folder, name, file) for name in REPLICAS)
        question = {"model": "auto", "messages": [{"role": "user", "content": "Hello?"}]}
        for http in (first, second):
            status, answer = post(f"http://{http}/v1/chat/completions", question)
            assert status == 200, answer
        upstream_calls = [sum_of(get(f"http://{http}/metrics"), 'promptkeep_requests_total{[^}]*outcome="upstream"}') for http in (first, second)]
        assert upstream_calls == [1, 0]

"""Every example runs, and every line of the shell examples works as pasted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["service", "cache_aside"])
@pytest.mark.parametrize("language", ["python", "node"])
def test_the_services_run(language, name):
    program = [sys.executable, EXAMPLES / "python" / f"{name}.py"]
    if language == "node":
        program = ["node", EXAMPLES / "node" / f"{name}.js"]
    out = run(program)
    if name == "service":
        assert "exact" in out.lower()
    else:
        assert out.splitlines()[0] == out.splitlines()[1], out


@pytest.mark.parametrize("name", ["curl", "grpcurl"])
def test_shell_lines_work_as_pasted(name, tmp_path):
    """Uses a server without tenants; its free ports replace the default ones."""
    text = (EXAMPLES / f"{name}.sh").read_text()
    text = text.replace("127.0.0.1:8080", os.environ["OPEN_HTTP"]).replace("127.0.0.1:50051", os.environ["OPEN_GRPC"])
    script = tmp_path / "lines.sh"
    script.write_text(text)
    out = run(["bash", "-euo", "pipefail", script])
    assert "you said: " in out

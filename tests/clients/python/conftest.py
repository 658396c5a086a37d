"""Where the server is, and how often the provider was asked."""

import json
import os
import urllib.request

import pytest


@pytest.fixture
def base_url():
    return f"http://{os.environ['PROMPTKEEP_HTTP']}/v1"


@pytest.fixture
def api_key():
    return os.environ["PROMPTKEEP_API_KEY"]


@pytest.fixture
def asked():
    """How often the provider was asked this text."""

    def count(text):
        with urllib.request.urlopen(f"{os.environ['UPSTREAM']}/asked") as reply:
            return json.load(reply).get(text, 0)

    return count

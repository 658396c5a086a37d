"""Fixtures: the server's address and key, and a count of the provider's calls."""

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
def upstream_calls():
    """Counts the calls that reached the provider with a given text."""

    def count(text):
        with urllib.request.urlopen(f"{os.environ['UPSTREAM']}/calls") as reply:
            return json.load(reply).get(text, 0)

    return count

"""The LangCache client. Only its base URL and key are changed."""

import os

import pytest
from langcache import LangCache, errors
from langcache.models import SearchStrategy


@pytest.fixture
def cache(api_key):
    with LangCache(server_url=f"http://{os.environ['PROMPTKEEP_HTTP']}", cache_id="lang", api_key=api_key) as cache:
        cache.flush()
        yield cache


def test_a_stored_answer_is_found_until_it_is_deleted(cache):
    assert cache.search(prompt="What is a cache?", similarity_threshold=0.9).data == []
    entry = cache.set(prompt="What is a cache?", response="A memory.", ttl_millis=60_000)
    [found] = cache.search(prompt="What is a cache?", search_strategies=[SearchStrategy.EXACT]).data
    assert (found.id, found.prompt, found.response) == (entry.entry_id, "What is a cache?", "A memory.")
    assert (found.similarity, found.search_strategy) == (1.0, SearchStrategy.EXACT)
    cache.delete_by_id(entry_id=entry.entry_id)
    assert cache.search(prompt="What is a cache?").data == []


def test_attributes_separate_entries_and_select_what_to_delete(cache):
    for language in ["de", "en"]:
        cache.set(prompt="Hours?", response=language, attributes={"language": language, "app": "shop"})
    [found] = cache.search(prompt="Hours?", attributes={"language": "de", "app": "shop"}).data
    assert (found.response, found.attributes) == ("de", {"language": "de", "app": "shop"})
    assert cache.delete_query(attributes={"language": "de"}).deleted_entries_count == 1
    assert cache.delete_query(attributes={"app": "shop"}).deleted_entries_count == 1


def test_errors_have_the_clients_own_classes(cache):
    with pytest.raises(errors.NotFoundErrorResponseContent):
        cache.delete_by_id(entry_id="0" * 32)
    with pytest.raises(errors.BadRequestErrorResponseContent) as wrong:
        cache.search(prompt="x", similarity_threshold=7)
    assert wrong.value.data.fields[0].field == "similarityThreshold"
    other = LangCache(server_url=f"http://{os.environ['PROMPTKEEP_HTTP']}", cache_id="lang", api_key="wrong")
    with pytest.raises(errors.AuthenticationErrorResponseContent):
        other.search(prompt="x")

# curl commands for the HTTP port. Each line works as pasted, against a server on its default ports. With tenants, add
# -H 'authorization: Bearer <key>'.

# An OpenAI chat completion. The second one comes from the cache, as the header x-promptkeep-outcome shows.
curl -sSi http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' -d '{"model":"auto","messages":[{"role":"user","content":"What is a prompt cache?"}]}'
curl -sSi http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' -d '{"model":"auto","messages":[{"role":"user","content":"What is a prompt cache?"}]}'

# A streamed chat completion.
curl -sSN http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' -d '{"model":"auto","stream":true,"messages":[{"role":"user","content":"What is a prompt cache?"}]}'

# no-cache: get a fresh answer, which replaces the cached one. only-if-cached: get a cached answer, or else 504.
curl -sS http://127.0.0.1:8080/v1/chat/completions -H 'cache-control: no-cache' -H 'content-type: application/json' -d '{"model":"auto","messages":[{"role":"user","content":"What is a prompt cache?"}]}'
curl -sS http://127.0.0.1:8080/v1/chat/completions -H 'cache-control: only-if-cached' -H 'content-type: application/json' -d '{"model":"auto","messages":[{"role":"user","content":"What is a prompt cache?"}]}'

# Cache the answer in a namespace of its own, with tags to remove it by, for at most an hour.
curl -sS http://127.0.0.1:8080/v1/chat/completions -H 'x-promptkeep-namespace: shop' -H 'x-promptkeep-tags: prices,eu' -H 'x-promptkeep-ttl: 3600' -H 'content-type: application/json' -d '{"messages":[{"role":"user","content":"What does shipping cost?"}]}'

# List the model names that a request may use.
curl -sS http://127.0.0.1:8080/v1/models

# Cache-aside: store an answer, find it, remove all entries with an attribute.
curl -sS http://127.0.0.1:8080/v1/caches/faq/entries -H 'content-type: application/json' -d '{"prompt":"Opening hours?","response":"Nine to five.","attributes":{"shop":"bonn"}}'
curl -sS http://127.0.0.1:8080/v1/caches/faq/entries/search -H 'content-type: application/json' -d '{"prompt":"Opening hours?","attributes":{"shop":"bonn"}}'
curl -sS -X DELETE http://127.0.0.1:8080/v1/caches/faq/entries -H 'content-type: application/json' -d '{"attributes":{"shop":"bonn"}}'

# Liveness, readiness, metrics.
curl -sS http://127.0.0.1:8080/healthz
curl -sS http://127.0.0.1:8080/readyz
curl -sS http://127.0.0.1:8080/metrics

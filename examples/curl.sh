# Each of these lines works as pasted, against a server on its default ports. With tenants, add
# -H 'authorization: Bearer <key>'.

# An OpenAI chat completion; the second time it comes from the cache, as x-promptkeep-outcome says.
curl -sSi http://127.0.0.1:8080/v1/chat/completions -d '{"model":"auto","messages":[{"role":"user","content":"What is a prompt cache?"}]}'
curl -sSi http://127.0.0.1:8080/v1/chat/completions -d '{"model":"auto","messages":[{"role":"user","content":"What is a prompt cache?"}]}'

# The same as a stream.
curl -sSN http://127.0.0.1:8080/v1/chat/completions -d '{"model":"auto","stream":true,"messages":[{"role":"user","content":"What is a prompt cache?"}]}'

# A fresh answer, which replaces the kept one; and only a kept one, or else 504.
curl -sS http://127.0.0.1:8080/v1/chat/completions -H 'cache-control: no-cache' -d '{"model":"auto","messages":[{"role":"user","content":"What is a prompt cache?"}]}'
curl -sS http://127.0.0.1:8080/v1/chat/completions -H 'cache-control: only-if-cached' -d '{"model":"auto","messages":[{"role":"user","content":"What is a prompt cache?"}]}'

# Apart from other applications, with tags to remove it by, for an hour at most.
curl -sS http://127.0.0.1:8080/v1/chat/completions -H 'x-promptkeep-namespace: shop' -H 'x-promptkeep-tags: prices,eu' -H 'x-promptkeep-ttl: 3600' -d '{"messages":[{"role":"user","content":"What does shipping cost?"}]}'

# The names that a request may ask for.
curl -sS http://127.0.0.1:8080/v1/models

# Cache-aside: keep an answer, find it, remove what has an attribute.
curl -sS http://127.0.0.1:8080/v1/caches/faq/entries -d '{"prompt":"Opening hours?","response":"Nine to five.","attributes":{"shop":"bonn"}}'
curl -sS http://127.0.0.1:8080/v1/caches/faq/entries/search -d '{"prompt":"Opening hours?","attributes":{"shop":"bonn"}}'
curl -sS -X DELETE http://127.0.0.1:8080/v1/caches/faq/entries -d '{"attributes":{"shop":"bonn"}}'

# Is it up, is it ready, what has it done.
curl -sS http://127.0.0.1:8080/healthz
curl -sS http://127.0.0.1:8080/readyz
curl -sS http://127.0.0.1:8080/metrics

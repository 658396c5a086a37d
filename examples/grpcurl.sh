# Each of these lines works as pasted, against a server on its default ports; reflection tells grpcurl the
# contract. With tenants, add -H 'authorization: Bearer <key>'.

# What there is.
grpcurl -plaintext 127.0.0.1:50051 list
grpcurl -plaintext 127.0.0.1:50051 describe promptkeep.v1.PromptCache
grpcurl -plaintext -d '{"service":"promptkeep.v1.PromptCache"}' 127.0.0.1:50051 grpc.health.v1.Health/Check

# From the cache, else from a model; whole, and as a stream. -max-time is the deadline.
grpcurl -plaintext -max-time 10 -d '{"prompt":{"messages":[{"role":"user","content":"What is gRPC?"}]}}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Complete
grpcurl -plaintext -max-time 10 -d '{"prompt":{"messages":[{"role":"user","content":"What is gRPC?"}]}}' 127.0.0.1:50051 promptkeep.v1.PromptCache/CompleteStream

# From the cache alone, if it is at most an hour old.
grpcurl -plaintext -d '{"prompt":{"messages":[{"role":"user","content":"What is gRPC?"}]},"cache":{"max_age":"3600s"}}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Lookup

# Why it would be answered so.
grpcurl -plaintext -d '{"prompt":{"messages":[{"role":"user","content":"What is gRPC?"}]}}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Explain

# Cache-aside: keep an answer of your own, with a tag; count what has the tag; remove it.
grpcurl -plaintext -d '{"prompt":{"namespace":"faq","messages":[{"role":"user","content":"Opening hours?"}]},"completion":{"content":"Nine to five.","finish_reason":"stop"},"cache":{"tags":["hours"]}}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Store
grpcurl -plaintext -d '{"namespace":"faq","tag":"hours","dry_run":true}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Invalidate
grpcurl -plaintext -d '{"namespace":"faq","tag":"hours"}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Invalidate

# What the last hour was like.
grpcurl -plaintext -d '{"window":"3600s"}' 127.0.0.1:50051 promptkeep.v1.PromptCache/GetStats

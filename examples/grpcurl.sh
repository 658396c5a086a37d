# grpcurl commands for every RPC but Feedback. Each line works as pasted, against a server on its default ports; grpcurl
# learns the contract by reflection. With tenants, add -H 'authorization: Bearer <key>'.

# List the services, describe one, check its health.
grpcurl -plaintext 127.0.0.1:50051 list
grpcurl -plaintext 127.0.0.1:50051 describe promptkeep.v1.PromptCache
grpcurl -plaintext -d '{"service":"promptkeep.v1.PromptCache"}' 127.0.0.1:50051 grpc.health.v1.Health/Check

# Answer from the cache, or else from a model: whole, then as a stream. -max-time sets the deadline.
grpcurl -plaintext -max-time 10 -d '{"prompt":{"messages":[{"role":"user","content":"What is gRPC?"}]}}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Complete
grpcurl -plaintext -max-time 10 -d '{"prompt":{"messages":[{"role":"user","content":"What is gRPC?"}]}}' 127.0.0.1:50051 promptkeep.v1.PromptCache/CompleteStream

# Answer from the cache only, with an entry at most an hour old.
grpcurl -plaintext -d '{"prompt":{"messages":[{"role":"user","content":"What is gRPC?"}]},"cache":{"max_age":"3600s"}}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Lookup

# Explain how that lookup is decided.
grpcurl -plaintext -d '{"prompt":{"messages":[{"role":"user","content":"What is gRPC?"}]}}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Explain

# Cache-aside: store your own answer with a tag, count the entries with the tag, remove them.
grpcurl -plaintext -d '{"prompt":{"namespace":"faq","messages":[{"role":"user","content":"Opening hours?"}]},"completion":{"content":"Nine to five.","finish_reason":"stop"},"cache":{"tags":["hours"]}}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Store
grpcurl -plaintext -d '{"namespace":"faq","tag":"hours","dry_run":true}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Invalidate
grpcurl -plaintext -d '{"namespace":"faq","tag":"hours"}' 127.0.0.1:50051 promptkeep.v1.PromptCache/Invalidate

# Statistics of the last hour.
grpcurl -plaintext -d '{"window":"3600s"}' 127.0.0.1:50051 promptkeep.v1.PromptCache/GetStats

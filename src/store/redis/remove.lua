-- Removes an entry unless it was replaced. KEYS: directory, entry, facets. ARGV: cache key, id, and the first bytes of
-- the value to remove, or nothing to remove any value.
if ARGV[3] ~= '' and redis.call('EXISTS', KEYS[2]) == 1
  and redis.call('GETRANGE', KEYS[2], 0, #ARGV[3] - 1) ~= ARGV[3] then
  return 0
end
redis.call('DEL', KEYS[2])
for i = 3, #KEYS do
  redis.call('ZREM', KEYS[i], ARGV[2])
end
return redis.call('ZREM', KEYS[1], ARGV[1])

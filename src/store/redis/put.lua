-- Stores an entry. KEYS: directory, entry, facets. ARGV: value, expiry (ms), cache key, id, now (ms).
-- The directory is written first: an entry that is not listed could not be removed. Facets drop expired ids, and
-- expire one hour after their last entry, so that clock skew cannot remove them early.
local added = redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3])
redis.call('SET', KEYS[2], ARGV[1], 'PXAT', ARGV[2])
for i = 3, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', '(' .. ARGV[5])
  redis.call('ZADD', KEYS[i], ARGV[2], ARGV[4])
  local ends = ARGV[2] + 3600000
  if redis.call('PTTL', KEYS[i]) < ends - ARGV[5] then
    redis.call('PEXPIREAT', KEYS[i], string.format('%.0f', ends))
  end
end
return added

-- Replaces a snapshot. KEYS: the snapshot. ARGV: its new value, which begins with its version; the version it replaces.
-- A value shorter than a version is not a snapshot.
local known = redis.call('GETRANGE', KEYS[1], 0, 15)
if #known == 16 and known ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1

-- KEYS: the note. ARGV: its new value, which begins with its version; the version that it takes the place of.
if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1

-- A driver's process has ended without a goodbye, as its connections say: from here on it counts as dead, and is
-- cleared away. Not if it has given a sign of its own since.
-- ARGV: sign of life, clients, drivers, client id, the latest time of a sign (by the clock of Redis) that is too old
-- Returns 1 if it counts as dead.
local sign, clients, drivers, client, too_old = unpack(ARGV, 1, 5)
local seen = redis.call('ZSCORE', drivers, client)
if not seen or tonumber(seen) > tonumber(too_old) then return 0 end
-- First what works while Redis is full; then `lives` goes by the rest, and so does who clears up.
redis.call('DEL', sign)
redis.call('ZREM', drivers, client)
redis.pcall('ZADD', clients, 'XX', '-inf', client)
return 1

-- Renew the sign of life of a client, unless it counts as dead: it was cleared away, or somebody is about it.
-- ARGV: sign of life, clients, client id, milliseconds, end of the lease
-- Returns 1, or 0 if it counts as dead.
local score = redis.call('ZSCORE', ARGV[2], ARGV[3])
if not score or score == '-inf' then return 0 end
-- PEXPIRE works also while Redis is full.
if redis.call('PEXPIRE', ARGV[1], ARGV[4]) == 0 then redis.call('SET', ARGV[1], '1', 'PX', ARGV[4]) end
redis.pcall('ZADD', ARGV[2], ARGV[5], ARGV[3])
return 1

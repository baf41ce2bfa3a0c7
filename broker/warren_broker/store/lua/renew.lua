-- Renew the sign of life of a client, unless it counts as dead: it was cleared away, or somebody is about it.
-- ARGV: sign of life, clients, client id, milliseconds, '1' to begin with one
-- The end of its lease is told by the clock of Redis: those of its clients may be hours apart.
-- Returns 1, or 0 if it counts as dead.
local score = redis.call('ZSCORE', ARGV[2], ARGV[3])
if ARGV[5] ~= '1' and (not score or score == '-inf') then return 0 end
-- PEXPIRE works also while Redis is full.
if redis.call('PEXPIRE', ARGV[1], ARGV[4]) == 0 then redis.call('SET', ARGV[1], '1', 'PX', ARGV[4]) end
local now = redis.call('TIME')
local noted = redis.pcall('ZADD', ARGV[2], now[1] + now[2] / 1000000 + ARGV[4] / 1000, ARGV[3])
if not score and type(noted) == 'table' then return noted end
return 1

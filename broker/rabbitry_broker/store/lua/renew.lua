-- Renew the sign of life of a client, unless it counts as dead: it was cleared away, or somebody is about it.
-- ARGV: sign of life, clients, client id, milliseconds, '1' to begin with one,
--       drivers ('' unless a driver itself gives this sign)
-- The end of its lease is told by the clock of Redis: those of its clients may be hours apart.
-- Returns 1, or 0 if it counts as dead.
local sign, clients, client, milliseconds, begin, drivers = unpack(ARGV, 1, 6)
local score = redis.call('ZSCORE', clients, client)
if begin ~= '1' and (not score or score == '-inf') then return 0 end
-- PEXPIRE works also while Redis is full.
if redis.call('PEXPIRE', sign, milliseconds) == 0 then redis.call('SET', sign, '1', 'PX', milliseconds) end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local noted = redis.pcall('ZADD', clients, now + milliseconds / 1000, client)
if drivers ~= '' then redis.pcall('ZADD', drivers, now, client) end
if not score and type(noted) == 'table' then return noted end
return 1

-- A client's lease has ended, and whoever asks for this trusts leases: from here on it counts as dead, and is cleared
-- away. Not if it has renewed its lease since.
-- ARGV: sign of life, clients, drivers, client id
-- Returns 1 if it counts as dead.
local sign, clients, drivers, client = unpack(ARGV, 1, 4)
if redis.call('EXISTS', sign) == 1 then return 0 end
local score = redis.call('ZSCORE', clients, client)
if not score or score == '-inf' then return 1 end
local time = redis.call('TIME')
if tonumber(score) > time[1] + time[2] / 1000000 then return 0 end
-- First what works while Redis is full.
redis.call('ZREM', drivers, client)
local marked = redis.pcall('ZADD', clients, 'XX', '-inf', client)
return type(marked) == 'table' and 0 or 1

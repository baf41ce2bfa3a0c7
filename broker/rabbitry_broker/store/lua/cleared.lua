-- A dead client was cleared away. If it has come back meanwhile, it counts as living again and is cleared away later.
-- ARGV: clients, client id
local clients, client = unpack(ARGV, 1, 2)
if redis.call('ZSCORE', clients, client) == '-inf' then return redis.call('ZREM', clients, client) end
return 0

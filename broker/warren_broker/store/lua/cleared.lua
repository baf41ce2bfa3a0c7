-- A dead client was cleared away. If it has come back meanwhile, it counts as living again and is cleared away later.
-- ARGV: clients, client id
if redis.call('ZSCORE', ARGV[1], ARGV[2]) == '-inf' then return redis.call('ZREM', ARGV[1], ARGV[2]) end
return 0

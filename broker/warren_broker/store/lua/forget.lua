-- A client says goodbye that owns nothing, unless somebody has just told it something: a result of its that came twice
-- has to be deleted first.
-- ARGV: clients, client id, ghosts, what of its results others hold, inbox, then its other keys
-- Returns 1, or 0 if there is something on its inbox.
if redis.call('EXISTS', ARGV[5]) == 1 then return 0 end
redis.call('ZREM', ARGV[1], ARGV[2])
redis.call('DEL', unpack(ARGV, 6))
if redis.call('EXISTS', ARGV[4]) == 1 then redis.call('SADD', ARGV[3], ARGV[2]) end
return 1

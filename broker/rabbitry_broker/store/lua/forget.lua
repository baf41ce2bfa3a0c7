-- A client says goodbye that owns nothing, unless somebody has just told it something: a result of its that came twice
-- has to be deleted first.
-- ARGV: clients, client id, ghosts, what of its results others hold, inbox, then its other keys
-- Returns 1, or 0 if there is something on its inbox.
local clients, client, ghosts, held, inbox = unpack(ARGV, 1, 5)
local FIRST_KEY = 6
if redis.call('EXISTS', inbox) == 1 then return 0 end
redis.call('ZREM', clients, client)
redis.call('UNLINK', unpack(ARGV, FIRST_KEY))
if redis.call('EXISTS', held) == 1 then redis.call('SADD', ghosts, client) end
return 1

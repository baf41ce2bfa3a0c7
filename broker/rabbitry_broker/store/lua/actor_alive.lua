-- The constructor of an actor's process has succeeded. A process that is not the actor's any more changes nothing.
-- ARGV: actor key, epoch of the process, its pid
local actor, epoch, pid = unpack(ARGV, 1, 3)
local r = redis.call('HMGET', actor, 'epoch', 'state')
if r[1] ~= epoch or r[2] == 'DEAD' then return 0 end
redis.call('HSET', actor, 'state', 'ALIVE', 'pid', pid)
return 1

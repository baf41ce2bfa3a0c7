-- The constructor of an actor's process has succeeded. A process that is not the actor's any more changes nothing.
-- ARGV: actor key, epoch of the process, its pid
local r = redis.call('HMGET', ARGV[1], 'epoch', 'state')
if r[1] ~= ARGV[2] or r[2] == 'DEAD' then return 0 end
redis.call('HSET', ARGV[1], 'state', 'ALIVE', 'pid', ARGV[3])
return 1

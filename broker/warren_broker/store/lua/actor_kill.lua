-- Somebody kills an actor. Its name is free at once.
-- ARGV: prefix, actor key, actor id, no_restart ('1'/'0'), cause
-- Returns the state it was in ('' unknown).
local key = ARGV[2]
local r = redis.call('HMGET', key, 'state', 'name', 'node')
if not r[1] or r[1] == 'DEAD' then return r[1] or '' end
if ARGV[4] == '1' then
  redis.call('HSET', key, 'no_restart', '1')
  if r[2] and r[2] ~= '' and redis.call('HGET', ARGV[1] .. 'names', r[2]) == ARGV[3] then
    redis.call('HDEL', ARGV[1] .. 'names', r[2])
  end
  if not r[3] or r[3] == '' then
    -- No process yet (or none at the moment): nobody else will end it. It stays among the actors until a node buries it.
    redis.call('HSET', key, 'state', 'DEAD', 'cause', ARGV[5])
    redis.call('HDEL', key, 'frame')
    redis.call('DEL', key .. ':state', key .. ':applied')
    redis.call('EXPIRE', key, 3600)
  end
end
return r[1]

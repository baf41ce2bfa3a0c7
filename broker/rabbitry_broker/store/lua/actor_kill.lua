-- Somebody kills an actor. Its name is free at once.
-- ARGV: prefix, actor key, actor id, no_restart ('1'/'0'), cause
-- Returns the state it was in ('' unknown).
local prefix, key, id, no_restart, cause = unpack(ARGV, 1, 5)
local r = redis.call('HMGET', key, 'state', 'name', 'node', 'function', 'epoch')
if not r[1] or r[1] == 'DEAD' then return r[1] or '' end
if cause ~= '' and r[3] and r[3] ~= '' then
  -- The message that tells its node may be missed: the node finds this when it listens again.
  redis.call('HSET', key, 'killed', r[5] or '', 'kill_cause', cause)
end
if no_restart == '1' then
  redis.call('HSET', key, 'no_restart', '1')
  if r[2] and r[2] ~= '' and redis.call('HGET', prefix .. 'names', r[2]) == id then
    redis.call('HDEL', prefix .. 'names', r[2])
  end
  if not r[3] or r[3] == '' then
    -- No process yet (or none at the moment): nobody else will end it. It stays among the actors until a node buries it.
    redis.call('HSET', key, 'state', 'DEAD', 'cause', cause)
    redis.call('HDEL', key, 'frame')
    redis.call('UNLINK', key .. ':state', key .. ':applied')
    redis.call('EXPIRE', key, 3600)
    for each in (r[4] or ''):gmatch('%x+') do unheld(prefix, each, 'a' .. id, 900000) end
  end
end
return r[1]

-- Remove a placement group; its record is kept for a while, for those who ask.
-- ARGV: prefix, key, id (hex), what the names of its queues begin with, message for nodes
-- Returns the state it was in; '' if there is none.
local prefix, key, id, stem, message = unpack(ARGV, 1, 5)
local now = group_now()
local KEPT_SECONDS, KEPT_GROUPS = 3600, 1000
local r = redis.call('HMGET', key, 'state', 'name')
local state = r[1] or ''
if state == '' or state == 'REMOVED' then return state end
group_move(key, 'REMOVED')
redis.call('HSET', key, 'why', 'REMOVED')
if r[2] and r[2] ~= '' and redis.call('HGET', prefix .. 'groups:names', r[2]) == id then
  redis.call('HDEL', prefix .. 'groups:names', r[2])
end
redis.call('SREM', prefix .. 'groups', id)
redis.call('EXPIRE', key, KEPT_SECONDS)
if redis.call('EXPIRE', key .. ':ready', KEPT_SECONDS) == 1 then redis.call('SADD', prefix .. 'groups:untold', id) end
local removed = prefix .. 'groups:removed'
redis.call('ZADD', removed, now, id)
redis.call('EXPIRE', removed, KEPT_SECONDS)
redis.call('ZREMRANGEBYSCORE', removed, '-inf', tonumber(now) - KEPT_SECONDS)
for _, old in ipairs(redis.call('ZRANGE', removed, 0, -1 - KEPT_GROUPS)) do
  redis.call('UNLINK', prefix .. 'pg:{' .. old .. '}')
  redis.call('ZREM', removed, old)
end
redis.call('PUBLISH', prefix .. 'control', message)
group_queues(prefix, key, stem)
return state

-- Register a placement group, and its name if it has one; tell nodes.
-- ARGV: prefix, key, id (hex), field of the name ('' for none), message for nodes, field, value, ...
-- Returns '' when it was registered, the id of the group that has the name otherwise.
local prefix, key, id, name, message = unpack(ARGV, 1, 5)
local FIRST_FIELD = 6
if redis.call('EXISTS', key) == 1 then return '' end
if name ~= '' then
  local taken = redis.call('HGET', prefix .. 'groups:names', name)
  if taken and taken ~= id and redis.call('SISMEMBER', prefix .. 'groups', taken) == 1 then return taken end
  redis.call('HSET', prefix .. 'groups:names', name, id)
end
redis.call('HSET', key, 'created', group_now(), unpack(ARGV, FIRST_FIELD))
redis.call('SADD', prefix .. 'groups', id)
redis.call('PUBLISH', prefix .. 'control', message)
return ''

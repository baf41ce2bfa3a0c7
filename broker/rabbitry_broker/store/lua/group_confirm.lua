-- A node that was asked to hold bundles of a placement group does, or cannot.
-- ARGV: prefix, key, what the names of its queues begin with, token of the plan, node, '1' if it holds them,
--       message for nodes that it stands, message that the plan comes to nothing, then their indices
-- Returns {'STALE'} if that plan is over, {'REFUSED'}, {'PREPARED'} while others are missing, or
-- {'CREATED', object, record, ...} with those who wait for it.
local prefix, key, stem, token, node, held, created, dropped = unpack(ARGV, 1, 8)
local FIRST_INDEX = 9
local r = redis.call('HMGET', key, 'state', 'token')
if r[2] ~= token then return {'STALE'} end
if r[1] == 'CREATED' and redis.call('HGET', key, 'b' .. ARGV[FIRST_INDEX]) == node then
  -- This ran before, and its reply was lost.
  return group_waiters(key, 'CREATED')
end
if r[1] ~= 'PREPARED' then return {'STALE'} end
if held ~= '1' then
  group_back(prefix, key, dropped)
  return {'REFUSED'}
end
for i = FIRST_INDEX, #ARGV do
  if redis.call('HGET', key, 'p' .. ARGV[i]) == node then
    redis.call('HDEL', key, 'p' .. ARGV[i])
    redis.call('HSET', key, 'c' .. ARGV[i], node)
  end
end
for i = 0, tonumber(redis.call('HGET', key, 'size')) - 1 do
  if redis.call('HEXISTS', key, 'p' .. i) == 1 then return {'PREPARED'} end
end
return group_created(prefix, key, stem, created)

-- The planner gives a plan up whose nodes do not answer.
-- ARGV: prefix, key, fence of the planner, token of the plan, message for nodes
-- Returns the state it is in now.
local prefix, key, fence, token, message = unpack(ARGV, 1, 5)
local r = redis.call('HMGET', key, 'state', 'token')
if redis.call('GET', prefix .. 'planner:fence') == fence and r[1] == 'PREPARED' and r[2] == token then
  group_back(prefix, key, message)
end
return redis.call('HGET', key, 'state') or ''

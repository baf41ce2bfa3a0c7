-- The planner has a plan for a placement group's bundles that no node holds; or it says why there is none.
-- ARGV: prefix, key, what the names of its queues begin with, fence of the planner, token of the plan, why there is
--       none, '1' if the planner holds all of it already, message for nodes, then index, node, index, node, ...
-- Returns {'FENCED'} if another node plans by now, {state} if there is nothing to plan, {'PREPARED'},
-- {'CREATED', object, record, ...} with those who wait for it, or {'WAITS'} if there is no plan.
local prefix, key, stem, fence, token, why, here, message = unpack(ARGV, 1, 8)
local FIRST_PAIR = 9
if redis.call('GET', prefix .. 'planner:fence') ~= fence then return {'FENCED'} end
local r = redis.call('HMGET', key, 'state', 'token')
local state = r[1] or ''
if state ~= 'PENDING' and state ~= 'RESCHEDULING' then
  if r[2] ~= token then return {state} end
  -- This ran before, and its reply was lost.
  if state == 'CREATED' then return group_waiters(key, state) end
  return {state}
end
redis.call('HSET', key, 'why', why)
redis.call('HINCRBY', key, 'attempt', 1)
if #ARGV < FIRST_PAIR then return {'WAITS'} end
group_move(key, 'PREPARED')
redis.call('HSET', key, 'token', token, 'fence', fence)
local kind = here == '1' and 'c' or 'p'
for i = FIRST_PAIR, #ARGV, 2 do redis.call('HSET', key, kind .. ARGV[i], ARGV[i + 1]) end
if here == '1' then return group_created(prefix, key, stem, '') end
redis.call('PUBLISH', prefix .. 'control', message)
return {'PREPARED'}

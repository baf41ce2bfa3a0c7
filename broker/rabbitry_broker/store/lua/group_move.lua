-- The one place where placement groups change their state; the table is drawn in store/groups.py.
-- A record: state, spec, name, size, made ('1' once it was CREATED), token and fence of the plan that was made last,
-- attempt, why, created, placed (times), and of each bundle i at most one of
--   p<i>  the node that is asked to hold it      c<i>  that node, which does      b<i>  the same, of a group that stands
local GROUP_MOVES = {
  PENDING = {PREPARED = true, REMOVED = true},
  PREPARED = {CREATED = true, PENDING = true, RESCHEDULING = true, REMOVED = true},
  CREATED = {RESCHEDULING = true, REMOVED = true},
  RESCHEDULING = {PREPARED = true, REMOVED = true},
  REMOVED = {},
}
-- The time in seconds, as text.
local function group_now()
  local t = redis.call('TIME')
  return string.format('%d.%06d', t[1], t[2])
end
local function group_move(key, to)
  local from = redis.call('HGET', key, 'state') or ''
  if not (GROUP_MOVES[from] and GROUP_MOVES[from][to]) then error('placement group ' .. key .. ': ' .. from .. ' -> ' .. to) end
  redis.call('HSET', key, 'state', to)
end
-- Tell nodes of those queues of its bundles to which somebody has published.
local function group_queues(prefix, key, stem)
  local size = tonumber(redis.call('HGET', key, 'size'))
  for i = -1, size - 1 do
    local queue = stem .. (i < 0 and 'any' or i)
    if redis.call('SISMEMBER', prefix .. 'queues', queue) == 1 then redis.call('PUBLISH', prefix .. 'queues:new', queue) end
  end
end
-- Returns {state, object, record, ...} with those who wait for it. Not by `unpack`, which takes 8000 values at most.
local function group_waiters(key, state)
  local reply = {state}
  for _, each in ipairs(redis.call('HGETALL', key .. ':ready')) do reply[#reply + 1] = each end
  return reply
end
-- All its bundles are held: it stands. Returns the reply that says so, with those who wait for it.
local function group_created(prefix, key, stem, message)
  group_move(key, 'CREATED')
  for i = 0, tonumber(redis.call('HGET', key, 'size')) - 1 do
    local node = redis.call('HGET', key, 'c' .. i)
    if node then
      redis.call('HDEL', key, 'c' .. i)
      redis.call('HSET', key, 'b' .. i, node)
    end
  end
  redis.call('HSET', key, 'made', '1', 'why', 'FINISHED')
  redis.call('HSETNX', key, 'placed', group_now())
  if message ~= '' then redis.call('PUBLISH', prefix .. 'control', message) end
  group_queues(prefix, key, stem)
  return group_waiters(key, 'CREATED')
end
-- A plan comes to nothing: whoever holds something of it lets go.
local function group_back(prefix, key, message)
  for i = 0, tonumber(redis.call('HGET', key, 'size')) - 1 do redis.call('HDEL', key, 'p' .. i, 'c' .. i) end
  group_move(key, redis.call('HGET', key, 'made') == '1' and 'RESCHEDULING' or 'PENDING')
  redis.call('PUBLISH', prefix .. 'control', message)
end

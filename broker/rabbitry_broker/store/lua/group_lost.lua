-- Nodes are gone (or leave), and with them bundles of a placement group.
-- ARGV: prefix, key, message that the plan comes to nothing, message that it is to be planned, then the nodes
-- Returns the state it is in now.
local prefix, key, dropped, message = unpack(ARGV, 1, 4)
local FIRST_NODE = 5
local gone = {}
for i = FIRST_NODE, #ARGV do gone[ARGV[i]] = true end
local r = redis.call('HMGET', key, 'state', 'size')
local state = r[1] or ''
if state == '' or state == 'REMOVED' then return state end
local asked, held = false, false
for i = 0, tonumber(r[2]) - 1 do
  local nodes = redis.call('HMGET', key, 'p' .. i, 'c' .. i, 'b' .. i)
  if (nodes[1] and gone[nodes[1]]) or (nodes[2] and gone[nodes[2]]) then asked = true end
  if nodes[3] and gone[nodes[3]] then
    held = true
    redis.call('HDEL', key, 'b' .. i)
  end
end
if state == 'PREPARED' and (asked or held) then group_back(prefix, key, dropped) end
if state == 'CREATED' and held then
  group_move(key, 'RESCHEDULING')
  redis.call('HSET', key, 'why', 'QUEUED')
end
if asked or held then redis.call('PUBLISH', prefix .. 'control', message) end
return redis.call('HGET', key, 'state')

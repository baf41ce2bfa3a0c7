-- A node would plan placement groups for the next while: one at a time does.
-- ARGV: prefix, node, milliseconds
-- Returns its fencing number, or 0 if another one does. Whoever takes it over gets a higher one.
local prefix, node, milliseconds = unpack(ARGV, 1, 3)
local key = prefix .. 'planner'
local holder = redis.call('GET', key)
if holder and holder ~= node then return 0 end
redis.call('SET', key, node, 'PX', milliseconds)
if holder then return tonumber(redis.call('GET', key .. ':fence') or 0) end
return redis.call('INCR', key .. ':fence')

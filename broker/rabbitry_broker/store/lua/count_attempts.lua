-- Count one more attempt of tasks of one client.
-- ARGV: prefix, tag of the client, then the rest of each task's id, ...
-- Returns the counts.
local prefix, tag = unpack(ARGV, 1, 2)
local FIRST_TASK = 3
local key = prefix .. 'a' .. tag
local counts = {}
for i = FIRST_TASK, #ARGV do counts[#counts + 1] = redis.call('HINCRBY', key, ARGV[i], 1) end
fade(prefix, key, tag)
return counts

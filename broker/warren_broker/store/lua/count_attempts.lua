-- Count one more attempt of tasks of one client.
-- ARGV: prefix, tag of the client, then the rest of each task's id, ...
-- Returns the counts.
local key = ARGV[1] .. 'a' .. ARGV[2]
local counts = {}
for i = 3, #ARGV do counts[#counts + 1] = redis.call('HINCRBY', key, ARGV[i], 1) end
fade(key, ARGV[2])
return counts

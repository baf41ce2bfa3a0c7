-- A task with dependencies: keep its spec until they are all there.
-- ARGV: prefix, spec key, frame, queue, priority, then tag, suffix of each dependency, ...
-- Returns 1 if all were there already (nothing kept: publish it), else 0.
local p, key = ARGV[1], ARGV[2]
-- May run twice (a reply was lost): what counts is what is missing now, not what was not noted yet.
local waits, seen = 0, {}
for i = 6, #ARGV, 2 do
  local tag, suffix = ARGV[i], ARGV[i + 1]
  local field = 'd' .. tag .. ':' .. suffix
  if not seen[field] and redis.call('EXISTS', p .. 'o' .. tag .. ':' .. suffix) == 0 then
    seen[field] = true
    waits = waits + 1
    redis.call('HSET', key, field, '1')
    added('SADD', p .. 'g' .. tag, suffix)
    added('SADD', p .. 'w' .. tag .. ':' .. suffix, 't' .. key)
  end
end
if waits == 0 then return 1 end
redis.call('HSET', key, 'n', waits, 'f', ARGV[3], 'q', ARGV[4], 'p', ARGV[5])
return 0

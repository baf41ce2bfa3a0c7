-- A task with dependencies: keep its spec until they are all there.
-- ARGV: prefix, spec key, frame, queue, priority, slice, then tag, suffix of each dependency, ...
-- slice: '' for all of a task's dependencies, 'part' for some of them (no frame yet: nothing publishes the spec, whatever
-- comes in between), 'last' for the rest, after the parts.
-- Returns 1 if all were there already (nothing kept: publish it), else 0.
local prefix, key, frame, queue, priority, slice = unpack(ARGV, 1, 6)
local FIRST_PAIR = 7
-- May run twice (a reply was lost): what counts is what is missing now, not what was not noted yet.
local waits, seen = 0, {}
for i = FIRST_PAIR, #ARGV, 2 do
  local tag, suffix = ARGV[i], ARGV[i + 1]
  local field = 'd' .. tag .. ':' .. suffix
  if not seen[field] and redis.call('EXISTS', prefix .. 'o' .. tag .. ':' .. suffix) == 0 then
    seen[field] = true
    waits = waits + 1
    redis.call('HSET', key, field, '1')
    added('SADD', prefix .. 'g' .. tag, suffix)
    added('SADD', prefix .. 'w' .. tag .. ':' .. suffix, 't' .. key)
  end
end
if slice == 'part' then return 0 end
if slice == 'last' then
  -- What is missing still of all slices. (A result that came meanwhile took its field away, and counted below zero.)
  waits = redis.call('HLEN', key)
  for _, field in ipairs({'n', 'f', 'q', 'p'}) do waits = waits - redis.call('HEXISTS', key, field) end
  if waits == 0 then redis.call('UNLINK', key) end
end
if waits == 0 then return 1 end
redis.call('HSET', key, 'n', waits, 'f', frame, 'q', queue, 'p', priority)
return 0

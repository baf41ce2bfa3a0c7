-- Read objects of other clients; be told on the inbox of those that are not there yet.
-- ARGV: prefix, id of the client that asks, then tag, suffix, ...
-- Returns for each: the record, false if it is to come, or 0 if it never will: its owner is gone. (Owners of detached
-- work have no lease; the first bit of their ids is set.)
local p, me = ARGV[1], 'c' .. ARGV[2]
local found = {}
for i = 3, #ARGV, 2 do
  local tag, suffix = ARGV[i], ARGV[i + 1]
  local record = redis.call('GET', p .. 'o' .. tag .. ':' .. suffix)
  if not record then
    if tag:byte(3) < 56 and not lives(p .. 'c' .. tag) then
      record = 0
    else
      added('SADD', p .. 'g' .. tag, suffix)
      added('SADD', p .. 'w' .. tag .. ':' .. suffix, me)
    end
  end
  found[#found + 1] = record
end
return found

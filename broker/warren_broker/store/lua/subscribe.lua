-- Read objects of other clients; be told on the inbox of those that are not there yet.
-- ARGV: prefix, id of the client that asks, then tag, suffix, ...
-- Returns the record or false for each.
local p, me = ARGV[1], 'c' .. ARGV[2]
local found = {}
for i = 3, #ARGV, 2 do
  local tag, suffix = ARGV[i], ARGV[i + 1]
  local record = redis.call('GET', p .. 'o' .. tag .. ':' .. suffix)
  if not record then
    redis.call('SADD', p .. 'g' .. tag, suffix)
    redis.call('SADD', p .. 'w' .. tag .. ':' .. suffix, me)
  end
  found[#found + 1] = record
end
return found

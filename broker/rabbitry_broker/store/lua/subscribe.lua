-- Read objects of other clients; be told on the inbox of those that are not there yet.
-- ARGV: prefix, id of the client that asks, then tag, suffix, ...
-- Returns for each: the record, false if it is to come, or 0 if it never will: its owner is gone. (Owners of detached
-- work have no lease; the first bit of their ids is set.)
local prefix, client = unpack(ARGV, 1, 2)
local FIRST_PAIR = 3
local me = 'c' .. client
local found = {}
for i = FIRST_PAIR, #ARGV, 2 do
  local tag, suffix = ARGV[i], ARGV[i + 1]
  local record = redis.call('GET', prefix .. 'o' .. tag .. ':' .. suffix)
  if not record then
    if tag:byte(3) < 56 and not lives(prefix, prefix .. 'c' .. tag) then
      record = 0
    else
      added('SADD', prefix .. 'g' .. tag, suffix)
      added('SADD', prefix .. 'w' .. tag .. ':' .. suffix, me)
    end
  end
  found[#found + 1] = record
end
return found

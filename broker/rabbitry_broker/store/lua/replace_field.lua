-- Replace a field of a hash if nobody has changed it meanwhile.
-- ARGV: hash, field, what it was, what it shall be ('' to delete it).
-- Returns 1 if it was replaced.
local key, field, old, new = unpack(ARGV)
if redis.call('HGET', key, field) ~= old then return 0 end
if new == '' then
  redis.call('HDEL', key, field)
else
  redis.call('HSET', key, field, new)
end
return 1

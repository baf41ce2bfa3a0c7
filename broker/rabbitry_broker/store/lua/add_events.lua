-- Append a batch of events to the stream; the oldest go, by age and by bytes. It may run twice: the batch stands twice then.
-- ARGV: stream, its size in bytes, batch ("" to let old ones go only), bytes it may have, seconds a batch is kept
-- Returns its size.
local stream, size, batch, limit, kept = unpack(ARGV, 1, 5)
limit, kept = tonumber(limit), tonumber(kept)
local now = redis.call('TIME')
local oldest = (tonumber(now[1]) - kept) * 1000
if batch ~= '' then
  redis.call('XADD', stream, '*', 'b', batch)
  redis.call('INCRBY', size, #batch)
end
local total = tonumber(redis.call('GET', size) or '0')
-- A few at a time: Redis answers nobody else meanwhile, and each call brings one only.
for _ = 1, 32 do
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if not first then
    total = 0
    redis.call('DEL', size)
    break
  end
  if total <= limit and tonumber(first[1]:match('^%d+')) >= oldest then break end
  redis.call('XDEL', stream, first[1])
  total = redis.call('DECRBY', size, #first[2][2])
end
redis.call('EXPIRE', stream, kept)
redis.call('EXPIRE', size, kept)
return total

-- A holder lets go of objects. Those whose owner let go before and that nobody else holds are deleted.
-- ARGV: prefix, holder, then tag, suffix, ...
-- Returns tag, suffix, record of each one deleted (its record names what it held itself).
local p = ARGV[1]
local gone = {}
for i = 3, #ARGV, 2 do
  local tag, suffix = ARGV[i], ARGV[i + 1]
  local holders = p .. 'h' .. tag .. ':' .. suffix
  redis.call('SREM', holders, ARGV[2])
  local count = redis.call('SCARD', holders)
  if count == 1 and redis.call('SISMEMBER', holders, '!') == 1 then
    local key = p .. 'o' .. tag .. ':' .. suffix
    gone[#gone + 1] = tag; gone[#gone + 1] = suffix; gone[#gone + 1] = redis.call('GET', key) or ''
    redis.call('UNLINK', key, holders)
    count = 0
  end
  if count == 0 then redis.call('SREM', p .. 'hg' .. tag, suffix) end
end
return gone

-- The owner, which had let go, has handles again.
-- ARGV: prefix, tag, suffix, ...
local gate, holders = ARGV[1] .. 'hg' .. ARGV[2], ARGV[1] .. 'h' .. ARGV[2] .. ':'
for i = 3, #ARGV do
  local set = holders .. ARGV[i]
  redis.call('SREM', set, '!')
  if redis.call('EXISTS', set) == 0 then redis.call('SREM', gate, ARGV[i]) end
end
return 0

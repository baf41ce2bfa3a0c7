-- The owner, which had let go, has handles again.
-- ARGV: prefix, tag, suffix, ...
local prefix, tag = unpack(ARGV, 1, 2)
local FIRST_SUFFIX = 3
local gate, holders = prefix .. 'hg' .. tag, prefix .. 'h' .. tag .. ':'
for i = FIRST_SUFFIX, #ARGV do
  local set = holders .. ARGV[i]
  redis.call('SREM', set, '!')
  if redis.call('EXISTS', set) == 0 then redis.call('SREM', gate, ARGV[i]) end
end
return 0

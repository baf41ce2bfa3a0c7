-- Somebody besides the owner holds objects of one owner now.
-- ARGV: prefix, tag, holder, suffix, ...
local prefix, tag, holder = unpack(ARGV, 1, 3)
local FIRST_SUFFIX = 4
local gate, holders = prefix .. 'hg' .. tag, prefix .. 'h' .. tag .. ':'
for i = FIRST_SUFFIX, #ARGV do
  redis.call('SADD', gate, ARGV[i])
  redis.call('SADD', holders .. ARGV[i], holder)
end
return 0

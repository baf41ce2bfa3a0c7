-- Somebody besides the owner holds objects of one owner now.
-- ARGV: prefix, tag, holder, suffix, ...
local gate, holders = ARGV[1] .. 'hg' .. ARGV[2], ARGV[1] .. 'h' .. ARGV[2] .. ':'
for i = 4, #ARGV do
  redis.call('SADD', gate, ARGV[i])
  redis.call('SADD', holders .. ARGV[i], ARGV[3])
end
return 0

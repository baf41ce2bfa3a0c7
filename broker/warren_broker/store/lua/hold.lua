-- Somebody besides the owner holds objects now.
-- ARGV: prefix, holder, then tag, suffix, ...
local p = ARGV[1]
for i = 3, #ARGV, 2 do
  redis.call('SADD', p .. 'hg' .. ARGV[i], ARGV[i + 1])
  redis.call('SADD', p .. 'h' .. ARGV[i] .. ':' .. ARGV[i + 1], ARGV[2])
end
return 0

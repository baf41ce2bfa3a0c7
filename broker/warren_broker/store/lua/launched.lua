-- Dependants were published for certain: forget their specs.
-- ARGV: prefix, then tag of the object, suffix of the object, spec key, ... (triples)
local p = ARGV[1]
for i = 2, #ARGV, 3 do
  local tag, suffix, spec = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  redis.call('DEL', spec)
  local key = p .. 'w' .. tag .. ':' .. suffix
  redis.call('SREM', key, 't' .. spec)
  if redis.call('EXISTS', key) == 0 then redis.call('SREM', p .. 'g' .. tag, suffix) end
end
return 0

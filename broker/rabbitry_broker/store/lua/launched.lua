-- Dependants were published for certain: forget their specs.
-- ARGV: prefix, then tag of the object, suffix of the object, spec key, ... (triples)
local prefix = ARGV[1]
local FIRST_TRIPLE = 2
for i = FIRST_TRIPLE, #ARGV, 3 do
  local tag, suffix, spec = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  redis.call('UNLINK', spec)
  local key = prefix .. 'w' .. tag .. ':' .. suffix
  redis.call('SREM', key, 't' .. spec)
  if redis.call('EXISTS', key) == 0 then redis.call('SREM', prefix .. 'g' .. tag, suffix) end
end
return 0

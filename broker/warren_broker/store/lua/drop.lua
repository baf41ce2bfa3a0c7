-- The owner let go of objects: delete those that nobody else holds.
-- ARGV: prefix, tag, suffix, ...
-- Returns the suffixes of those that stay.
local p, tag = ARGV[1], ARGV[2]
local objects, gate = p .. 'o' .. tag .. ':', p .. 'hg' .. tag
if redis.call('EXISTS', gate) == 0 then
  for i = 3, #ARGV do redis.call('UNLINK', objects .. ARGV[i]) end
  return {}
end
local kept = {}
for i = 3, #ARGV do
  if redis.call('SISMEMBER', gate, ARGV[i]) == 1 then
    redis.call('SADD', p .. 'h' .. tag .. ':' .. ARGV[i], '!')
    kept[#kept + 1] = ARGV[i]
  else
    redis.call('UNLINK', objects .. ARGV[i])
  end
end
return kept

-- Delete values at once, whoever holds them: an error stands in their place.
-- ARGV: prefix, tag, suffix, sealed error, suffix, sealed error, ...
-- Returns graves as release.lua does.
local p, tag = ARGV[1], ARGV[2]
local graves = {}
for i = 3, #ARGV, 2 do
  local suffix = ARGV[i]
  local object = p .. 'o' .. tag .. ':' .. suffix
  local kind = redis.call('GETRANGE', object, 16, 16)
  if kind ~= '' and kind ~= 'A' then
    if kind == 'C' or kind == 'L' then
      local record = redis.call('GET', object)
      redis.pcall('HSET', p .. 'r' .. tag, suffix, record)
      graves[#graves + 1] = suffix
      graves[#graves + 1] = record
    end
    redis.call('SET', object, ARGV[i + 1], 'KEEPTTL')
  end
end
return graves

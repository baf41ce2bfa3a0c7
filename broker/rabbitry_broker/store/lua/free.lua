-- Delete values at once, whoever holds them: an error stands in their place.
-- ARGV: prefix, tag, suffix, sealed error, suffix, sealed error, ...
-- Returns graves as release.lua does.
local prefix, tag = unpack(ARGV, 1, 2)
local FIRST_PAIR = 3
local graves = {}
for i = FIRST_PAIR, #ARGV, 2 do
  local suffix = ARGV[i]
  local object = prefix .. 'o' .. tag .. ':' .. suffix
  local kind = redis.call('GETRANGE', object, 16, 16)
  if kind ~= '' and kind ~= 'A' then
    if kind == 'C' or kind == 'L' then
      local record = redis.call('GET', object)
      redis.pcall('HSET', prefix .. 'r' .. tag, suffix, record)
      graves[#graves + 1] = suffix
      graves[#graves + 1] = record
    end
    redis.call('SET', object, ARGV[i + 1], 'KEEPTTL')
  end
end
return graves

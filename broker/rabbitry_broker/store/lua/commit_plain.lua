-- Commit results that nobody but their owner waits for, of an owner that is known to live: what most commits are.
-- ARGV: prefix, tag, inbox entry, object TTL in ms (0 none), then suffix, record, suffix, record, ...
-- Returns 0, or -3: then it is for commit.lua, which finds what this one has written, if anything.
local prefix, tag, entry, ttl = unpack(ARGV, 1, 4)
local FIRST_RESULT = 5
local owner = prefix .. 'c' .. tag
-- One question for two: the owner counts twice, and what waits for its results once.
if redis.call('EXISTS', owner, owner, prefix .. 'g' .. tag) ~= 2 then return -3 end
local objects = prefix .. 'o' .. tag .. ':'
for i = FIRST_RESULT, #ARGV, 2 do
  local set
  if ttl == '0' then
    set = redis.call('SET', objects .. ARGV[i], ARGV[i + 1], 'NX')
  else
    set = redis.call('SET', objects .. ARGV[i], ARGV[i + 1], 'NX', 'PX', ttl)
  end
  if not set then return -3 end
end
if type(redis.pcall('RPUSH', prefix .. 'i' .. tag, entry)) == 'table' then return -3 end
return 0

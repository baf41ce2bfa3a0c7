-- The rest of a transaction that began with MSETNX of many results and a mark: see commit_plain.lua, of which this is the
-- form for many. MSETNX writes all or nothing, and costs a third of as many calls from a script.
-- ARGV: prefix, tag, inbox entry, mark (its value), suffixes in one
-- Returns 0, or -3: then nothing of it counts, and it is for commit.lua.
local prefix, tag, entry, mark, suffixes = unpack(ARGV, 1, 5)
local SUFFIX_BYTES = 16
local marked = prefix .. 'z' .. tag
local written = redis.call('GET', marked) == mark
redis.call('DEL', marked)
if not written then return -3 end
local owner = prefix .. 'c' .. tag
if redis.call('EXISTS', owner, owner, prefix .. 'g' .. tag) == 2
  and type(redis.pcall('RPUSH', prefix .. 'i' .. tag, entry)) ~= 'table' then
  return 0
end
-- Nothing may stay of an owner that has been cleared away.
for at = 1, #suffixes, SUFFIX_BYTES do
  redis.call('UNLINK', prefix .. 'o' .. tag .. ':' .. suffixes:sub(at, at + SUFFIX_BYTES - 1))
end
return -3

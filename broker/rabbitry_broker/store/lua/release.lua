-- A holder lets go of objects of one owner. Those whose owner let go before and that nobody else holds are deleted.
-- ARGV: prefix, tag, holder, suffix, ...
-- Returns suffix, record of each deleted one that has buffers or refs of its own, or is an actor: it is in its owner's graves
-- until the caller has let these go, too (see lives.py).
local prefix, tag, holder = unpack(ARGV, 1, 3)
local FIRST_SUFFIX = 4
local gate, holders, objects = prefix .. 'hg' .. tag, prefix .. 'h' .. tag .. ':', prefix .. 'o' .. tag .. ':'
local graves = {}
for i = FIRST_SUFFIX, #ARGV do
  local suffix = ARGV[i]
  local set = holders .. suffix
  redis.call('SREM', set, holder)
  local count = redis.call('SCARD', set)
  if count == 1 and redis.call('SISMEMBER', set, '!') == 1 then
    local object = objects .. suffix
    local kind = redis.call('GETRANGE', object, 16, 16)
    if kind == 'C' or kind == 'L' or kind == 'A' then
      local record = redis.call('GET', object)
      -- At maxmemory the grave is refused, the deletion must not be.
      redis.pcall('HSET', prefix .. 'r' .. tag, suffix, record)
      graves[#graves + 1] = suffix
      graves[#graves + 1] = record
    end
    redis.call('UNLINK', object, set)
    count = 0
  elseif count == 0 then
    -- This runs again if its reply was lost.
    local record = redis.call('HGET', prefix .. 'r' .. tag, suffix)
    if record then
      graves[#graves + 1] = suffix
      graves[#graves + 1] = record
    end
  end
  if count == 0 then redis.call('SREM', gate, suffix) end
end
return graves

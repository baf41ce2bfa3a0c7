-- The owner lets go of objects: delete those that nobody else holds.
-- ARGV: prefix, tag, look ('1': some may have buffers or refs of their own), suffix, ...
-- Returns {suffixes that stay, suffixes that could not be dropped (Redis is full), graves as in release.lua}.
local prefix, tag, look_inside = unpack(ARGV, 1, 3)
local FIRST_SUFFIX = 4
local look = look_inside == '1'
local gate, holders, objects = prefix .. 'hg' .. tag, prefix .. 'h' .. tag .. ':', prefix .. 'o' .. tag .. ':'
local any = redis.call('EXISTS', gate) == 1
local kept, failed, graves = {}, {}, {}
if not any and not look then -- what most of them are
  local names = {}
  for i = FIRST_SUFFIX, #ARGV do names[i - FIRST_SUFFIX + 1] = objects .. ARGV[i] end
  if #names > 0 then redis.call('UNLINK', unpack(names)) end
  return {kept, failed, graves}
end
for i = FIRST_SUFFIX, #ARGV do
  local suffix = ARGV[i]
  if any and redis.call('SISMEMBER', gate, suffix) == 1 then
    local marked = redis.pcall('SADD', holders .. suffix, '!')
    if type(marked) == 'table' and marked.err then
      failed[#failed + 1] = suffix
    else
      kept[#kept + 1] = suffix
    end
  else
    local object = objects .. suffix
    if look then
      local kind = redis.call('GETRANGE', object, 16, 16)
      local record
      if kind == 'C' or kind == 'L' then
        record = redis.call('GET', object)
        redis.pcall('HSET', prefix .. 'r' .. tag, suffix, record)
      elseif kind == '' then
        record = redis.call('HGET', prefix .. 'r' .. tag, suffix)  -- this runs again if its reply was lost
      end
      if record then
        graves[#graves + 1] = suffix
        graves[#graves + 1] = record
      end
    end
    redis.call('UNLINK', object)
  end
end
return {kept, failed, graves}

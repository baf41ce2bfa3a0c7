-- Mark tasks that may run once only as started by a node.
-- ARGV: prefix, tag of their client, mark (unique to this call), then task id, ...
-- Returns for each: '' if it may start now, else the mark of the call that started it before.
local prefix, tag, mark = unpack(ARGV, 1, 3)
local FIRST_TASK = 4
local key = prefix .. 's' .. tag
local before = {}
-- Another type: somebody else wrote there. It goes, or no task of that client could ever start.
if type(redis.pcall('HGET', key, '')) == 'table' then redis.call('DEL', key) end
for i = FIRST_TASK, #ARGV do
  if redis.call('HSETNX', key, ARGV[i], mark) == 1 or redis.call('HGET', key, ARGV[i]) == mark then
    before[#before + 1] = ''
  else
    before[#before + 1] = redis.call('HGET', key, ARGV[i])
  end
end
fade(prefix, key, tag)
return before

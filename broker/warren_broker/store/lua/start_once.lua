-- Mark tasks that may run once only as started by a node.
-- ARGV: starts key, mark (unique to this call), then task id, ...
-- Returns for each: '' if it may start now, else the mark of the call that started it before.
local before = {}
-- Another type: somebody else wrote there. It goes, or no task of that client could ever start.
if type(redis.pcall('HGET', ARGV[1], '')) == 'table' then redis.call('DEL', ARGV[1]) end
for i = 3, #ARGV do
  if redis.call('HSETNX', ARGV[1], ARGV[i], ARGV[2]) == 1 or redis.call('HGET', ARGV[1], ARGV[i]) == ARGV[2] then
    before[#before + 1] = ''
  else
    before[#before + 1] = redis.call('HGET', ARGV[1], ARGV[i])
  end
end
return before

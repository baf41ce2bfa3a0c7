-- Mark tasks that may run once only as started by a node.
-- ARGV: starts key, node id, then task id, ...
-- Returns for each: '' if it may start now, else the node that started it before.
local before = {}
for i = 3, #ARGV do
  if redis.call('HSETNX', ARGV[1], ARGV[i], ARGV[2]) == 1 then
    before[#before + 1] = ''
  else
    before[#before + 1] = redis.call('HGET', ARGV[1], ARGV[i])
  end
end
return before

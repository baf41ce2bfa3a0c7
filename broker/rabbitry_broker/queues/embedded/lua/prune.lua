-- Forget the levels of a queue, apart from its base, that hold nothing.
-- ARGV from 4: queue.
-- Returns the levels that are left.
local queue = ARGV[4]
for _, level in ipairs(redis.call('SMEMBERS', P .. 'ql:' .. queue)) do
  -- Nothing is pending either in an empty stream: acknowledged entries are deleted, and only those.
  if redis.call('XLEN', stream(queue, level)) == 0 then
    redis.call('DEL', stream(queue, level))
    redis.call('SREM', P .. 'ql:' .. queue, level)
  end
end
return redis.call('SMEMBERS', P .. 'ql:' .. queue)

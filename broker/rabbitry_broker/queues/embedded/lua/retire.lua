-- Delete a queue that nobody has used for long, if no message waits or is being worked on: in one step it is on record
-- no more, and marked, so that who publishes to it announces it anew and who reads it lets go of it.
-- ARGV from 4: queue.
-- Returns 1 if that was done.
local queue, now = ARGV[4], now_ms()
for _, level in ipairs(levels_of(queue)) do
  if redis.call('XLEN', stream(queue, level)) > 0 then return 0 end
end
for _, level in ipairs(levels_of(queue)) do redis.call('UNLINK', stream(queue, level)) end
redis.call('UNLINK', P .. 'ql:' .. queue, P .. 'qx:' .. queue)
redis.call('SREM', P .. 'queues', queue)
redis.call('SREM', P .. 'queues:prioritized', queue)
redis.call('ZREMRANGEBYSCORE', P .. 'queues:retired', '-inf', now - RETIRED_MS)
redis.call('ZADD', P .. 'queues:retired', now, queue)
redis.call('PEXPIRE', P .. 'queues:retired', RETIRED_MS)
return 1

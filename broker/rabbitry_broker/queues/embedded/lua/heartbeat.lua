-- A consumer shows that it lives.
-- ARGV from 4: consumer.
-- Returns 1 if it was taken for dead since it last did (0 if not), then the names of consumers that are dead.
local consumer, now = ARGV[4], now_ms()
local answer = {is_dead(consumer, now) and 1 or 0}
redis.call('ZADD', P .. 'qc', now, consumer)
local silent = redis.call('ZRANGEBYSCORE', P .. 'qc', '-inf', '(' .. (now - DEAD_MS), 'WITHSCORES')
for i = 1, #silent, 2 do
  answer[#answer + 1] = silent[i]
  -- Its entries are put back by whoever reads their queues; who subscribes later looks for himself.
  if now - tonumber(silent[i + 1]) > 10 * DEAD_MS then
    redis.call('ZREM', P .. 'qc', silent[i])
    redis.call('DEL', P .. 'qn:' .. silent[i])
  end
end
return answer

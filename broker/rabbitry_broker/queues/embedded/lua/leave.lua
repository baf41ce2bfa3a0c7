-- A consumer has stopped reading a queue. An empty queue that nobody reads vanishes.
-- ARGV from 4: queue, consumer, 1 to put back what the consumer still holds.
local queue, consumer, now = ARGV[4], ARGV[5], now_ms()
if ARGV[6] == '1' then rescue(queue, consumer, {}) end
if redis.call('GET', P .. 'qx:' .. queue) == consumer then redis.call('DEL', P .. 'qx:' .. queue) end
for _, level in ipairs(levels_of(queue)) do
  local key = stream(queue, level)
  local groups = redis.pcall('XINFO', 'CONSUMERS', key, GROUP)
  if not groups.err then
    local readers = 0
    for _, facts in ipairs(groups) do
      -- facts: name, <name>, pending, <count>, ...
      if facts[2] == consumer and facts[4] == 0 then
        redis.call('XGROUP', 'DELCONSUMER', key, GROUP, consumer)
      elseif facts[4] > 0 or not is_dead(facts[2], now) then
        readers = readers + 1
      end
    end
    if readers == 0 and redis.call('XLEN', key) == 0 then
      redis.call('DEL', key)
      redis.call('SREM', P .. 'ql:' .. queue, level)
    end
  end
end
return 1

-- A consumer begins to read a queue, or learns how it stands: makes what is missing, puts back what nobody works on.
-- ARGV from 4: queue, consumer, 1 for exclusive, the consumer again if what is pending in its name is to be put back
-- (else ''), then "<stream> <id>" of each entry that it works on and that stays.
-- Returns the levels without the base; false if another consumer has the queue to itself; 0 if the queue was retired.
local queue, consumer = ARGV[4], ARGV[5]
if is_retired(queue) then return 0 end
if ARGV[6] == '1' then
  local lease = P .. 'qx:' .. queue
  local holder = redis.call('GET', lease)
  if holder and holder ~= consumer and not is_dead(holder, now_ms()) then return false end
  redis.call('SET', lease, consumer)
end
for _, level in ipairs(levels_of(queue)) do make_group(stream(queue, level)) end
local known = {}
for i = 8, #ARGV do known[ARGV[i]] = true end
rescue(queue, ARGV[7], known)
return redis.call('SMEMBERS', P .. 'ql:' .. queue)

-- Add what a process has measured to that of its job.
-- ARGV: hash of the job, number of the batch that the process sent last, number of this one, series there may be,
--   seconds it is kept, then for each series: '+' (grows by) or '=' (is), field, value
-- Returns how many were dropped, there being too many series. Run twice, it does nothing the second time.
local job, last, number, limit, kept = unpack(ARGV, 1, 5)
if tonumber(redis.call('GET', last) or '0') >= tonumber(number) then return 0 end
local dropped = 0
local count = redis.call('HLEN', job)
for at = 6, #ARGV, 3 do
  local how, field, value = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local there = redis.call('HEXISTS', job, field) == 1
  if there or count < tonumber(limit) then
    if not there then count = count + 1 end
    if how == '+' then redis.call('HINCRBYFLOAT', job, field, value) else redis.call('HSET', job, field, value) end
  else
    dropped = dropped + 1
  end
end
redis.call('EXPIRE', job, kept)
redis.call('SET', last, number, 'EX', 600)
return dropped

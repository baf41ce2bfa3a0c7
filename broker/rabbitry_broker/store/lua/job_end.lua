-- A driver has left: its record is none of those that are there; for a while it can still be read.
-- ARGV: key of its record, sorted set of those that are there, hash of ended ones, sorted set of when they ended, job,
-- time, how many are kept, channel, message, hash of queues and the jobs that have them.
local record, there, ended, times, job, now, kept, channel, message, claims = unpack(ARGV)
local stored = redis.pcall('GET', record)
redis.call('UNLINK', record)
redis.pcall('ZREM', there, job)
local claimed = redis.pcall('HGETALL', claims)
for i = 1, #claimed, 2 do
  if claimed[i + 1] == job then redis.call('HDEL', claims, claimed[i]) end
end
-- What is kept for those who look back is left out where there is no room for it.
if type(stored) == 'string' and type(redis.pcall('HSET', ended, job, stored)) == 'number' then
  redis.pcall('ZADD', times, now, job)
  local over = redis.pcall('ZRANGE', times, 0, -tonumber(kept) - 1)
  for _, old in ipairs(over) do
    redis.pcall('HDEL', ended, old)
    redis.pcall('ZREM', times, old)
  end
end
redis.call('PUBLISH', channel, message)
return 1

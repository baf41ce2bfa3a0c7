-- A client holds a function that was just stored: it stays.
-- ARGV: prefix, function, its holders, what the client holds, sign of life, client id, hash, '1' if for detached tasks
-- Who counts as dead holds nothing (it exports again when it learns that): then the function goes after a while.
local prefix, func, holders, of_client, sign, client, digest, detached = unpack(ARGV, 1, 8)
if redis.pcall('SISMEMBER', holders, 'd') == 1 then
  -- It may have been about to end, which only a new one takes back (PERSIST is not among the commands of a driver).
  local before = redis.call('SMEMBERS', holders)
  redis.call('DEL', holders)
  for _, each in ipairs(before) do redis.call('SADD', holders, each) end
end
if lives(prefix, sign) then
  added('SADD', of_client, digest)
  added('SADD', holders, 'c' .. client)
end
if detached == '1' then added('SADD', holders, 'd') end
if redis.call('EXISTS', holders) == 0 then redis.call('EXPIRE', func, 900) end

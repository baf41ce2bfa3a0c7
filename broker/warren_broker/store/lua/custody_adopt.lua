-- Take over what a dead node had in custody: it is in our own custody from now on, so that it outlives us too.
-- ARGV: custody key of the dead node, custody key of ours
-- The other key stays until they are on their queues: this may run twice, if its reply is lost.
-- Returns field, entry, field, entry, ...
local entries = redis.call('HGETALL', ARGV[1])
for i = 1, #entries, 2 do redis.call('HSET', ARGV[2], entries[i], entries[i + 1]) end
return entries

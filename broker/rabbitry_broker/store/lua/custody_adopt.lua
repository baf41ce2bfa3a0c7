-- Take over what a dead node had in custody: it is in our own custody from now on, so that it outlives us too.
-- ARGV: custody key of the dead node, custody key of ours
-- The other key stays until they are on their queues: this may run twice, if its reply is lost.
-- Returns field, entry, field, entry, ...
local theirs, ours = unpack(ARGV, 1, 2)
local entries = redis.call('HGETALL', theirs)
for i = 1, #entries, 2 do redis.call('HSET', ours, entries[i], entries[i + 1]) end
return entries

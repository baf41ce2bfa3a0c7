-- Append to a level of a queue that is not its base.
-- ARGV from 4: queue, level, body.
-- Returns the id of the entry; false if the queue was retired.
if is_retired(ARGV[4]) then return false end
announce(ARGV[4], ARGV[5])
return redis.call('XADD', stream(ARGV[4], ARGV[5]), '*', 'b', ARGV[6])

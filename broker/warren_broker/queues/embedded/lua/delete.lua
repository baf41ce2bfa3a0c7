-- Delete a queue with all it holds.
-- ARGV from 4: queue.
for _, level in ipairs(levels_of(ARGV[4])) do redis.call('UNLINK', stream(ARGV[4], level)) end
return redis.call('UNLINK', P .. 'ql:' .. ARGV[4], P .. 'qx:' .. ARGV[4])

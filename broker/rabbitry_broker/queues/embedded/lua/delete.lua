-- Delete a queue with all it holds.
-- ARGV from 4: queue, '1' to do so only if no message waits or is being worked on.
if ARGV[5] == '1' then
  for _, level in ipairs(levels_of(ARGV[4])) do
    if redis.call('XLEN', stream(ARGV[4], level)) > 0 then return 0 end
  end
end
for _, level in ipairs(levels_of(ARGV[4])) do redis.call('UNLINK', stream(ARGV[4], level)) end
return redis.call('UNLINK', P .. 'ql:' .. ARGV[4], P .. 'qx:' .. ARGV[4])

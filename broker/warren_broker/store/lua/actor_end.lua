-- An actor's process ended: restart it if that is allowed, else it is dead for good.
-- ARGV: prefix, actor key, actor id, final ('1': no restart whatever is left), cause, epoch of the process ('' any),
-- node that sees to the restart, '1' if its node was lost with it
-- Returns {'RESTARTING', frame, queue} or {'DEAD'} or {'STALE'} if a later process lives already. Of a dead one that
-- node fails the calls, and deletes the queue in the end.
local key = ARGV[2]
local r = redis.call('HMGET', key, 'state', 'max_restarts', 'restarts', 'frame', 'queue', 'name', 'epoch', 'no_restart', 'node')
if not r[1] then return {'DEAD'} end
if ARGV[6] ~= '' and r[7] and r[7] ~= ARGV[6] then return {'STALE'} end
if r[1] == 'DEAD' then return {'DEAD'} end
-- This ran before, and its reply was lost or the node that was to restart it: no process has started since, so it is
-- one and the same end.
if r[1] == 'RESTARTING' and ARGV[6] ~= '' and r[9] == '' and r[8] ~= '1' and ARGV[4] ~= '1' then
  redis.call('HSET', key, 'keeper', ARGV[7])
  if ARGV[8] == '1' then redis.call('HSET', key, 'lost', '1') end
  return {'RESTARTING', r[4], r[5]}
end
local most, used = tonumber(r[2] or '0'), tonumber(r[3] or '0')
if ARGV[4] ~= '1' and r[8] ~= '1' and (most < 0 or used < most) then
  redis.call('HSET', key, 'state', 'RESTARTING', 'restarts', used + 1, 'node', '', 'keeper', ARGV[7], 'lost', ARGV[8])
  return {'RESTARTING', r[4], r[5]}
end
redis.call('HSET', key, 'state', 'DEAD', 'cause', ARGV[5], 'node', '', 'keeper', ARGV[7])
if r[6] and r[6] ~= '' and redis.call('HGET', ARGV[1] .. 'names', r[6]) == ARGV[3] then
  redis.call('HDEL', ARGV[1] .. 'names', r[6])
end
redis.call('HDEL', key, 'frame')
redis.call('SREM', ARGV[1] .. 'actors', ARGV[3])
redis.call('SADD', ARGV[1] .. 'burials', ARGV[3])
redis.call('DEL', key .. ':state', key .. ':applied')
redis.call('EXPIRE', key, 3600)
return {'DEAD'}

-- An actor's process ended: restart it if that is allowed, else it is dead for good.
-- ARGV: prefix, actor key, actor id, final ('1': no restart whatever is left), cause, epoch of the process ('' any),
-- node that sees to the restart, '1' if its node was lost with it
-- Returns {'RESTARTING', frame, queue} or {'DEAD'} or {'STALE'} if a later process lives already. Of a dead one that
-- node fails the calls, and deletes the queue in the end.
local prefix, key, id, final, cause, epoch, keeper, lost = unpack(ARGV, 1, 8)
local r = redis.call('HMGET', key, 'state', 'max_restarts', 'restarts', 'frame', 'queue', 'name', 'epoch', 'no_restart', 'node', 'function')
if not r[1] then return {'DEAD'} end
if epoch ~= '' and r[7] and r[7] ~= epoch then return {'STALE'} end
if r[1] == 'DEAD' then return {'DEAD'} end
-- This ran before, and its reply was lost or the node that was to restart it: no process has started since, so it is
-- one and the same end.
if r[1] == 'RESTARTING' and epoch ~= '' and r[9] == '' and r[8] ~= '1' and final ~= '1' then
  redis.call('HSET', key, 'keeper', keeper)
  if lost == '1' then redis.call('HSET', key, 'lost', '1') end
  return {'RESTARTING', r[4], r[5]}
end
local most, used = tonumber(r[2] or '0'), tonumber(r[3] or '0')
if final ~= '1' and r[8] ~= '1' and (most < 0 or used < most) then
  redis.call('HSET', key, 'state', 'RESTARTING', 'restarts', used + 1, 'node', '', 'keeper', keeper, 'lost', lost)
  return {'RESTARTING', r[4], r[5]}
end
redis.call('HSET', key, 'state', 'DEAD', 'cause', cause, 'node', '', 'keeper', keeper)
if r[6] and r[6] ~= '' and redis.call('HGET', prefix .. 'names', r[6]) == id then
  redis.call('HDEL', prefix .. 'names', r[6])
end
redis.call('HDEL', key, 'frame')
redis.call('SREM', prefix .. 'actors', id)
redis.call('SADD', prefix .. 'burials', id)
redis.call('UNLINK', key .. ':state', key .. ':applied')
redis.call('EXPIRE', key, 3600)
for each in (r[10] or ''):gmatch('%x+') do unheld(prefix, each, 'a' .. id, 900000) end
return {'DEAD'}

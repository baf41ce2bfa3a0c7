-- A node is about to start an actor's process.
-- ARGV: actor key, node id
-- Returns {state, epoch, restarts, owner, detached}; state 'DEAD' (or '' for unknown): it must not start.
-- The epoch fences: a process of an earlier epoch can commit no state any more.
local state = redis.call('HGET', ARGV[1], 'state') or ''
if state == 'DEAD' or state == '' then return {state, 0, 0, '', ''} end
local epoch = redis.call('HINCRBY', ARGV[1], 'epoch', 1)
redis.call('HSET', ARGV[1], 'node', ARGV[2])
local rest = redis.call('HMGET', ARGV[1], 'restarts', 'owner', 'detached')
return {state, epoch, tonumber(rest[1] or '0'), rest[2] or '', rest[3] or ''}

-- A node is about to start an actor's process.
-- ARGV: actor key, node id, prefix of node keys
-- Returns {state, epoch, restarts, owner, '1' if its last process was lost with its node}; state 'DEAD' (or '' for
-- unknown): it must not start; 'DUPLICATE': another living node, or this one, has its process already.
-- The epoch fences: a process of an earlier epoch can commit no state any more.
local actor, starter, nodes = unpack(ARGV, 1, 3)
local state = redis.call('HGET', actor, 'state') or ''
if state == 'DEAD' or state == '' then return {state, 0, 0, '', ''} end
local node = redis.call('HGET', actor, 'node') or ''
if node ~= '' and node ~= starter then
  local hex = node:gsub('.', function(c) return string.format('%02x', c:byte()) end)
  if redis.call('EXISTS', nodes .. hex) == 1 then return {'DUPLICATE', 0, 0, '', ''} end
end
local epoch = redis.call('HINCRBY', actor, 'epoch', 1)
redis.call('HSET', actor, 'node', starter)
local rest = redis.call('HMGET', actor, 'restarts', 'owner', 'lost')
return {state, epoch, tonumber(rest[1] or '0'), rest[2] or '', rest[3] or ''}

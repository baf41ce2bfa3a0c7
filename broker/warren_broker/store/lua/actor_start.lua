-- A node is about to start an actor's process.
-- ARGV: actor key, node id, prefix of node keys
-- Returns {state, epoch, restarts, owner, '1' if its last process was lost with its node}; state 'DEAD' (or '' for
-- unknown): it must not start; 'DUPLICATE': another living node, or this one, has its process already.
-- The epoch fences: a process of an earlier epoch can commit no state any more.
local state = redis.call('HGET', ARGV[1], 'state') or ''
if state == 'DEAD' or state == '' then return {state, 0, 0, '', ''} end
local node = redis.call('HGET', ARGV[1], 'node') or ''
if node ~= '' and node ~= ARGV[2] then
  local hex = node:gsub('.', function(c) return string.format('%02x', c:byte()) end)
  if redis.call('EXISTS', ARGV[3] .. hex) == 1 then return {'DUPLICATE', 0, 0, '', ''} end
end
local epoch = redis.call('HINCRBY', ARGV[1], 'epoch', 1)
redis.call('HSET', ARGV[1], 'node', ARGV[2])
local rest = redis.call('HMGET', ARGV[1], 'restarts', 'owner', 'lost')
return {state, epoch, tonumber(rest[1] or '0'), rest[2] or '', rest[3] or ''}

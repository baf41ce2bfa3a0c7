-- A node says goodbye.
-- ARGV: prefix, node, the same in hex, '1' if work of it is left: others must know that there was this node
local prefix, node, hex, work_left = unpack(ARGV, 1, 4)
local LEFT_KEPT, LEFT_NODES = 600, 100 -- seconds; how many: people want to see who left, and nobody clears up after them
local left, record = prefix .. 'nodes:left', redis.call('MGET', prefix .. 'n:' .. hex)[1]
redis.call('DEL', prefix .. 'n:' .. hex)
redis.call('HDEL', prefix .. 'nodes:slots', node)
redis.call('ZREM', prefix .. 'nodes:leases', hex)
if work_left ~= '1' then redis.call('HDEL', prefix .. 'nodes', node) end
if redis.call('MGET', prefix .. 'head')[1] == node then redis.call('DEL', prefix .. 'head') end
redis.call('ZREM', prefix .. 'nodes:rooms', hex)
if redis.call('EXISTS', prefix .. 'nodes:leases') == 0 then
  redis.call('DEL', prefix .. 'nodes:changes', prefix .. 'nodes:rooms', left) -- nobody is left to read them
else
  local now = nodes_now()
  node_changed(prefix .. 'nodes:changes', hex, now)
  if record then
    redis.call('ZADD', left, string.format('%.0f', now), node .. record)
    redis.call('ZREMRANGEBYSCORE', left, '-inf', string.format('%.0f', now - LEFT_KEPT * 1000000))
    local beyond = redis.call('ZRANGE', left, 0, -LEFT_NODES - 1)
    if #beyond > 0 then redis.call('ZREM', left, unpack(beyond)) end -- by commands that nodes' accounts have
    redis.call('EXPIRE', left, LEFT_KEPT)
  end
end

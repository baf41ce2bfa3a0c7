-- A node says goodbye.
-- ARGV: prefix, node, the same in hex, '1' if work of it is left: others must know that there was this node
local prefix, node, hex, work_left = unpack(ARGV, 1, 4)
redis.call('DEL', prefix .. 'n:' .. hex)
redis.call('HDEL', prefix .. 'nodes:slots', node)
redis.call('ZREM', prefix .. 'nodes:leases', hex)
if work_left ~= '1' then redis.call('HDEL', prefix .. 'nodes', node) end
if redis.call('MGET', prefix .. 'head')[1] == node then redis.call('DEL', prefix .. 'head') end
redis.call('ZREM', prefix .. 'nodes:rooms', hex)
if redis.call('EXISTS', prefix .. 'nodes:leases') == 0 then
  redis.call('DEL', prefix .. 'nodes:changes', prefix .. 'nodes:rooms') -- nobody is left to read them
else
  node_changed(prefix .. 'nodes:changes', hex, nodes_now())
end

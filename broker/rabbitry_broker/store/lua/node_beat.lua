-- A node gives its sign of life, and reads what changed of the others.
-- ARGV: prefix, node, the same in hex, milliseconds of its lease, record, slots,
--       '1' if others are to read it anew, and '1' if only for its room,
--       head: '1' to claim or renew it, '0' to give it up, '' for neither,
--       since when changes are read, and those of rooms; how many of each at most,
--       microseconds after which a driver without a sign of life is silent, then keys of turns
-- Returns {was it alive, now, {holder of the head, milliseconds left}, changes, rooms,
--          {holder of the planner's lease, milliseconds left of it}, number of queues, of prioritized queues,
--          are there silent drivers, {milliseconds left of each turn}}
local prefix, node, hex, lease, record, slots, news, room, head, since, rooms_since, limit, late =
  unpack(ARGV, 1, 13)
local key, now = prefix .. 'n:' .. hex, nodes_now()
-- PEXPIRE first: it works also while Redis is full, and a script that has begun to write is not refused any more.
local alive = redis.call('PEXPIRE', key, lease)
redis.call('SET', key, record, 'PX', lease)
redis.call('HSET', prefix .. 'nodes', node, record)
redis.call('HSET', prefix .. 'nodes:slots', node, slots)
redis.call('ZADD', prefix .. 'nodes:leases', string.format('%.0f', now + lease * 1000), hex)
if alive == 0 or news == '1' then node_changed(prefix .. 'nodes:changes', hex, now) end
if room == '1' then node_changed(prefix .. 'nodes:rooms', hex, now) end
nodes_expired(prefix, now)
local function holder_of(name)
  return {redis.call('MGET', name)[1] or '', redis.call('PTTL', name)}
end
local claimed = prefix .. 'head'
local holds = holder_of(claimed)
if head == '1' and holds[1] == node then
  redis.call('PEXPIRE', claimed, lease)
  holds[2] = tonumber(lease)
elseif head == '1' and holds[2] == -2 then
  redis.call('SET', claimed, node, 'PX', lease)
  holds = {node, tonumber(lease)}
elseif head == '0' and holds[1] == node then
  redis.call('DEL', claimed)
  holds = {'', -2}
end
local function size_of(name)
  local size = redis.pcall('SCARD', name)
  return type(size) == 'number' and size or -1 -- somebody else wrote there: who reads it sees to that
end
local turns = {}
for i = 14, #ARGV do turns[#turns + 1] = redis.call('PTTL', ARGV[i]) end
return {
  alive, string.format('%.0f', now), holds,
  nodes_changed(prefix, prefix .. 'nodes:changes', since, limit, hex),
  nodes_changed(prefix, prefix .. 'nodes:rooms', rooms_since, limit, hex),
  holder_of(prefix .. 'planner'),
  size_of(prefix .. 'queues'), size_of(prefix .. 'queues:prioritized'),
  #redis.call('ZRANGEBYSCORE', prefix .. 'c:{drivers}', '-inf', (now - late) / 1000000, 'LIMIT', 0, 1),
  turns,
}

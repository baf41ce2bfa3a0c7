-- What nodes read of each other: what changed. Two sorted sets of nodes (hex), by when others were to read them anew, in
-- microseconds of Redis' clock: `nodes:changes` of who comes, goes, drains or has other resources, `nodes:rooms` of who
-- has other room. Whoever has not read for half of NODES_KEPT reads all nodes instead, so what is older goes.
local NODES_KEPT = 60000000
local NODES_EXPIRED_AT_ONCE = 16
local function nodes_now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
local function nodes_id(hex) -- somebody else may have written what is none
  return (hex:gsub('%x%x', function(two) return string.char(tonumber(two, 16)) end))
end
local function node_changed(key, hex, now)
  -- Above what anybody has read, though the clock went back or this is the same microsecond.
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
  if last and tonumber(last) >= now then now = tonumber(last) + 1 end
  redis.call('ZADD', key, string.format('%.0f', now), hex)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - NODES_KEPT))
  redis.call('PEXPIRE', key, NODES_KEPT / 1000)
end
-- Notice nodes whose leases ended: the first one to look tells all.
local function nodes_expired(prefix, now)
  local leases = prefix .. 'nodes:leases'
  for _, hex in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, NODES_EXPIRED_AT_ONCE)) do
    local left = redis.call('PTTL', prefix .. 'n:' .. hex)
    if left == -2 then
      redis.call('ZREM', leases, hex)
      redis.call('HDEL', prefix .. 'nodes:slots', nodes_id(hex))
      node_changed(prefix .. 'nodes:changes', hex, now)
    else -- renewed without a beat
      redis.call('ZADD', leases, string.format('%.0f', now + math.max(left, 1000) * 1000), hex)
    end
  end
end
-- Returns {score of the last one read, how many were found, node, record, ...} of others than `me`. In place of a
-- record: '' of a node that said goodbye, '-' of one whose lease ended.
local function nodes_changed(prefix, key, since, limit, me)
  local found = redis.call('ZRANGEBYSCORE', key, '(' .. since, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
  local reply = {found[#found] or since, #found / 2}
  local others, keys = {}, {}
  for i = 1, #found, 2 do
    if found[i] ~= me then
      others[#others + 1] = found[i]
      keys[#keys + 1] = prefix .. 'n:' .. found[i]
    end
  end
  if #others == 0 then return reply end
  local records = redis.call('MGET', unpack(keys)) -- unlike GET, not offended by another type
  for i, hex in ipairs(others) do
    local record = records[i]
    if not record then
      record = redis.call('HEXISTS', prefix .. 'nodes', nodes_id(hex)) == 1 and '-' or ''
    end
    reply[#reply + 1] = nodes_id(hex)
    reply[#reply + 1] = record
  end
  return reply
end

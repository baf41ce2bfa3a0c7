-- Functions that the other scripts of this folder begin with.
-- P: prefix of the engine's keys. GROUP: the consumer group. DEAD_MS: a consumer this long silent is dead.
local P, GROUP, DEAD_MS = ARGV[1], ARGV[2], tonumber(ARGV[3])

local RETIRED_MS = 600000 -- for so long it is marked that a queue was retired

local function is_retired(queue)
  return redis.call('ZSCORE', P .. 'queues:retired', queue)
end

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function is_dead(consumer, now)
  local seen = redis.call('ZSCORE', P .. 'qc', consumer)
  return not seen or now - tonumber(seen) > DEAD_MS
end

local function stream(queue, level)
  return P .. 'q:' .. queue .. level
end

local function make_group(key)
  redis.pcall('XGROUP', 'CREATE', key, GROUP, '0', 'MKSTREAM')
end

-- All levels of a queue, its base ('') first.
local function levels_of(queue)
  local levels = redis.call('SMEMBERS', P .. 'ql:' .. queue)
  table.insert(levels, 1, '')
  return levels
end

-- Make sure that consumers read this level: they know the base only, others are announced when they begin to exist.
local function announce(queue, level)
  if level == '' then return end
  if redis.call('SADD', P .. 'ql:' .. queue, level) == 1 then
    make_group(stream(queue, level))
    for _, consumer in ipairs(redis.call('ZRANGE', P .. 'qc', 0, -1)) do
      redis.call('XADD', P .. 'qn:' .. consumer, 'MAXLEN', '~', 1000, '*', 'q', queue)
    end
  end
end

-- Move entries of a stream that some consumer holds to the level that is read before it, marked as redelivered; those
-- that nobody has looked at (`unseen`) only if they were before.
local function put_back(queue, level, ids, unseen)
  local source, target = stream(queue, level), level
  if string.sub(level, -2) ~= ':r' then target = level .. ':r' end
  local moved = 0
  for _, id in ipairs(ids) do
    local entry = redis.call('XRANGE', source, id, id)[1]
    if entry then
      if moved == 0 then announce(queue, target) end
      if unseen and not entry[2][3] then
        redis.call('XADD', stream(queue, target), '*', 'b', entry[2][2])
      else
        redis.call('XADD', stream(queue, target), '*', 'b', entry[2][2], 'r', '1')
      end
      redis.call('XACK', source, GROUP, id)
      redis.call('XDEL', source, id)
      moved = moved + 1
    end
  end
  return moved
end

-- Put back what dead consumers hold, and what `own` holds apart from the ids in `known` (if own is not '').
local function rescue(queue, own, known)
  local now = now_ms()
  local moved = 0
  for _, level in ipairs(levels_of(queue)) do
    local key = stream(queue, level)
    local pending = redis.pcall('XPENDING', key, GROUP)
    if not pending.err and pending[1] > 0 then
      for _, held in ipairs(pending[4]) do
        local consumer, ids = held[1], {}
        if consumer == own then
          for _, item in ipairs(redis.call('XPENDING', key, GROUP, '-', '+', held[2], consumer)) do
            if not known[key .. ' ' .. item[1]] then ids[#ids + 1] = item[1] end
          end
        elseif is_dead(consumer, now) then
          for _, item in ipairs(redis.call('XPENDING', key, GROUP, '-', '+', held[2], consumer)) do
            ids[#ids + 1] = item[1]
          end
        end
        moved = moved + put_back(queue, level, ids)
      end
    end
  end
  return moved
end

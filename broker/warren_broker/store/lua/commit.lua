-- Commit results of tasks: idempotent, the first result of a task stands.
-- ARGV: prefix, tag, inbox entry ('' for none), object TTL in ms (0 none), owner must live ('1'/'0'),
--       publish here ('1': queues are streams of this server),
--       actor key ('' if no durable actor), its epoch, its state ('' for: as it is), the calls it contains,
--       sign of life of who prepared these results ('' if none was prepared),
--       a queue of which one released task may be handed to the caller ('' for none),
--       where that is noted, and a spec noted there that these results end, tag and suffix of what released it ('' if none),
--       then suffix, record, suffix, record, ...
-- A durable actor's state is committed with its results, or nothing is: a process of an earlier epoch, or of an
-- actor that is dead, gets {-2}.
-- Who counts as dead gets {-2} too, if buffers or refs of its results may have been cleared away with it.
-- Returns {-1} if the owner is gone (nothing written), else a flat list of what is left to do for those who wait:
--   'c', client id, suffix              tell this client's inbox
--   't', spec key, frame, queue, priority, suffix   publish, then call launched.lua
--   'r', the same                       run this one (at most one, of that queue), then call launched.lua
--   'x', suffix                         another result stands there (or this one, if it was committed before)
local p, tag = ARGV[1], ARGV[2]
if ARGV[11] ~= '' and not lives(ARGV[11]) then return {-2} end
if ARGV[7] ~= '' then
  local actor = redis.call('HMGET', ARGV[7], 'epoch', 'state')
  if actor[1] ~= ARGV[8] or actor[2] == 'DEAD' then return {-2} end
  if ARGV[9] ~= '' then redis.call('SET', ARGV[7] .. ':state', ARGV[9]) end
  redis.call('SET', ARGV[7] .. ':applied', ARGV[10])
end
if ARGV[14] ~= '' then
  redis.call('HDEL', ARGV[13], ARGV[14])
  redis.call('DEL', ARGV[14])
  local waiting = p .. 'w' .. ARGV[15] .. ':' .. ARGV[16]
  redis.call('SREM', waiting, 't' .. ARGV[14])
  if redis.call('EXISTS', waiting) == 0 then redis.call('SREM', p .. 'g' .. ARGV[15], ARGV[16]) end
end
if ARGV[5] == '1' and not lives(p .. 'c' .. tag) then return {-1} end
local objects, ttl, here, mine = p .. 'o' .. tag .. ':', ARGV[4], ARGV[6] == '1', ARGV[12]
local left, standing = {}, {}
for i = 17, #ARGV, 2 do
  local set
  if ttl == '0' then
    set = redis.call('SET', objects .. ARGV[i], ARGV[i + 1], 'NX')
  else
    set = redis.call('SET', objects .. ARGV[i], ARGV[i + 1], 'NX', 'PX', ttl)
  end
  if not set then
    left[#left + 1] = 'x'; left[#left + 1] = ARGV[i]
    standing[i + 1] = redis.call('GET', objects .. ARGV[i])
  end
end
if ARGV[3] ~= '' then added('RPUSH', p .. 'i' .. tag, ARGV[3]) end
-- A small record goes along with what it releases (see messages.py): that saves its executor a round trip.
local function along(suffix, sealed)
  if #sealed > 8192 then return '' end
  local payload = tag:sub(3, -2) .. suffix .. sealed:sub(17)
  return 'WI' .. struct.pack('>I4', #payload) .. sealed:sub(1, 16) .. payload
end
-- The spec at `who` waits for one result less; {} for what is no spec: waiters and specs are not signed.
local function one_less(who, field)
  if redis.pcall('HDEL', who, field) == 1 then redis.pcall('HINCRBY', who, 'n', -1) end
  local spec = redis.pcall('HMGET', who, 'n', 'f', 'q', 'p')
  if spec.err or (spec[1] == '0' and not (spec[2] and spec[3] and spec[4])) then return {} end
  return spec
end
local gate = p .. 'g' .. tag
local waited = redis.pcall('SCARD', gate)
if type(waited) == 'table' then redis.call('DEL', gate) end
if waited == 0 or type(waited) == 'table' then return left end
for i = 17, #ARGV, 2 do
  local suffix = ARGV[i]
  if redis.call('SISMEMBER', gate, suffix) == 1 then
    local key = p .. 'w' .. tag .. ':' .. suffix
    local keep = false
    local waiters = redis.pcall('SMEMBERS', key)
    if waiters.err then waiters = {} end
    for _, waiter in ipairs(waiters) do
      local kind, who = waiter:sub(1, 1), waiter:sub(2)
      if kind == 'c' then
        redis.call('SREM', key, waiter)
        left[#left + 1] = 'c'; left[#left + 1] = who; left[#left + 1] = suffix
      else
        local spec = one_less(who, 'd' .. tag .. ':' .. suffix)
        local to_run = spec[1] == '0' and mine ~= '' and spec[3] == mine and spec[4] == '0'
        if spec[1] == '0' and here and not to_run then
          local stream = p .. 'q:' .. spec[3]
          if spec[4] ~= '0' then stream = stream .. ':p' .. spec[4] end
          redis.call('XADD', stream, '*', 'b', along(suffix, standing[i + 1] or ARGV[i + 1]) .. spec[2])
          redis.call('DEL', who)
          redis.call('SREM', key, waiter)
        elseif spec[1] == '0' then
          -- Kept until it is published for certain: a crash before that commits again and comes here again.
          keep = true
          for _, part in ipairs({to_run and 'r' or 't', who, along(suffix, standing[i + 1] or ARGV[i + 1]) .. spec[2], spec[3], spec[4], suffix}) do left[#left + 1] = part end
          if to_run then mine = '' end
          -- What a continuation releases is noted too: no delivery stands for it until it is published.
          if to_run or ARGV[14] ~= '' then redis.call('HSET', ARGV[13], who, tag .. suffix) end
        else
          redis.call('SREM', key, waiter)
        end
      end
    end
    if not keep then redis.call('SREM', gate, suffix); redis.call('DEL', key) end
  end
end
return left

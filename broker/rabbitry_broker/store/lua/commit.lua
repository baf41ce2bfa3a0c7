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
local prefix, tag, entry, ttl, require_owner, publish, actor, actor_epoch, actor_state, actor_applied,
  preparer, mine, continuations, ended_spec, ended_tag, ended_suffix = unpack(ARGV, 1, 16)
local FIRST_RESULT = 17
if preparer ~= '' and not lives(prefix, preparer) then return {-2} end
if actor ~= '' then
  local stands = redis.call('HMGET', actor, 'epoch', 'state')
  if stands[1] ~= actor_epoch or stands[2] == 'DEAD' then return {-2} end
  if actor_state ~= '' then redis.call('SET', actor .. ':state', actor_state) end
  redis.call('SET', actor .. ':applied', actor_applied)
end
if ended_spec ~= '' then
  redis.call('HDEL', continuations, ended_spec)
  redis.call('DEL', ended_spec)
  local waiting = prefix .. 'w' .. ended_tag .. ':' .. ended_suffix
  redis.call('SREM', waiting, 't' .. ended_spec)
  if redis.call('EXISTS', waiting) == 0 then redis.call('SREM', prefix .. 'g' .. ended_tag, ended_suffix) end
end
if require_owner == '1' and not lives(prefix, prefix .. 'c' .. tag) then return {-1} end
-- A job's own queue for a class counts as the common one here: who is offered the task knows its own job.
local function is_mine(queue)
  return mine ~= '' and queue:gsub('^job%.%x+%.', 'task.') == mine
end
local objects, here = prefix .. 'o' .. tag .. ':', publish == '1'
local left, standing = {}, {}
for i = FIRST_RESULT, #ARGV, 2 do
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
if entry ~= '' then added('RPUSH', prefix .. 'i' .. tag, entry) end
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
local gate = prefix .. 'g' .. tag
local waited = redis.pcall('SCARD', gate)
if type(waited) == 'table' then redis.call('DEL', gate) end
if waited == 0 or type(waited) == 'table' then return left end
for i = FIRST_RESULT, #ARGV, 2 do
  local suffix = ARGV[i]
  if redis.call('SISMEMBER', gate, suffix) == 1 then
    local key = prefix .. 'w' .. tag .. ':' .. suffix
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
        local to_run = spec[1] == '0' and spec[4] == '0' and is_mine(spec[3])
        if spec[1] == '0' and here and not to_run then
          publish_here(prefix, spec[3], spec[4], along(suffix, standing[i + 1] or ARGV[i + 1]) .. spec[2])
          redis.call('DEL', who)
          redis.call('SREM', key, waiter)
        elseif spec[1] == '0' then
          -- Kept until it is published for certain: a crash before that commits again and comes here again.
          keep = true
          for _, part in ipairs({to_run and 'r' or 't', who, along(suffix, standing[i + 1] or ARGV[i + 1]) .. spec[2], spec[3], spec[4], suffix}) do left[#left + 1] = part end
          if to_run then mine = '' end
          -- What a continuation releases is noted too: no delivery stands for it until it is published.
          if to_run or ended_spec ~= '' then redis.call('HSET', continuations, who, tag .. suffix) end
        else
          redis.call('SREM', key, waiter)
        end
      end
    end
    if not keep then redis.call('SREM', gate, suffix); redis.call('DEL', key) end
  end
end
return left

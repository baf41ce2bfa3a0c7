-- Register a new actor, and its name if it has one.
-- ARGV: prefix, names key, field of the name ('' for none), actor key, actor id, hashes of its class and of what its
-- environment needs (hexadecimal, separated; '' unless it is detached: then it holds that as long as it lives), field,
-- value, ...
-- Returns {''} when it was registered, {id of the living actor of that name, its facts} when the name is taken.
local prefix, names, field, key, id, needs = unpack(ARGV, 1, 6)
local FIRST_FIELD = 7
if field ~= '' then
  local taken = redis.call('HGET', names, field)
  if taken and taken ~= id then
    local record = prefix .. 'actor:{' .. taken .. '}'
    local found = redis.call('HMGET', record, 'state', 'facts')
    if found[1] and found[1] ~= 'DEAD' then return {taken, found[2] or ''} end
  end
  redis.call('HSET', names, field, id)
end
redis.call('HSET', key, unpack(ARGV, FIRST_FIELD))
if needs ~= '' then
  redis.call('HSET', key, 'function', needs)
  -- Its creator holds that already, so nothing is about to end.
  for each in needs:gmatch('%x+') do added('SADD', prefix .. 'u:' .. each, 'a' .. id) end
end
redis.call('SADD', prefix .. 'actors', id)
return {''}

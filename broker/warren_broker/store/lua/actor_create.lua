-- Register a new actor, and its name if it has one.
-- ARGV: prefix, names key, field of the name ('' for none), get_if_exists ('1'/'0'), actor key, actor id, field, value, ...
-- Returns {''} when it was registered, {id of the living actor of that name, its facts} when the name is taken.
local names, field, key = ARGV[2], ARGV[3], ARGV[5]
if field ~= '' then
  local taken = redis.call('HGET', names, field)
  if taken and taken ~= ARGV[6] then
    local record = ARGV[1] .. 'actor:{' .. taken .. '}'
    local found = redis.call('HMGET', record, 'state', 'facts')
    if found[1] and found[1] ~= 'DEAD' then return {taken, found[2] or ''} end
  end
  redis.call('HSET', names, field, ARGV[6])
end
redis.call('HSET', key, unpack(ARGV, 7))
redis.call('SADD', ARGV[1] .. 'actors', ARGV[6])
return {''}

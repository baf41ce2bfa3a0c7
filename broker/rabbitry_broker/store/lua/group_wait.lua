-- An object is to tell of a placement group's creation: it is noted, unless there is nothing to wait for.
-- ARGV: key, object id, its record (sealed)
-- Returns the group's state, '' if there is none.
local key, object, record = unpack(ARGV, 1, 3)
local state = redis.call('HGET', key, 'state') or ''
if state == 'PENDING' or state == 'PREPARED' or state == 'RESCHEDULING' then
  redis.call('HSET', key .. ':ready', object, record)
end
return state

-- Add to a list or set of a client's. What stands there in another type, somebody else wrote: it goes. Else nothing
-- could be committed for that client any more. Returns what the command does.
local function added(command, key, member)
  local reply = redis.pcall(command, key, member)
  if type(reply) == 'table' and reply.err then
    if not reply.err:find('WRONGTYPE') then error(reply.err) end
    redis.call('DEL', key)
    reply = redis.call(command, key, member)
  end
  return reply
end

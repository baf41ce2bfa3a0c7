-- One holder of a function less (see store/functions.py). It goes after a while if that was the last one, after a week
-- if detached tasks may still use it.
local function unheld(prefix, digest, member, milliseconds)
  local f = prefix .. 'f:' .. digest
  local held = prefix .. 'u:' .. digest
  redis.pcall('SREM', held, member)
  local left = redis.pcall('SMEMBERS', held)
  if left.err then redis.call('DEL', held); left = {} end
  if #left == 0 then
    redis.call('PEXPIRE', f, milliseconds)
  elseif #left == 1 and left[1] == 'd' then
    redis.call('EXPIRE', f, 604800)
    redis.call('EXPIRE', held, 604800)
  end
end

-- Needs `lives`. What is noted of a client's tasks goes with the client.
-- Who was cleared away is not cleared away again, and the owner of detached work (the first bit of its id is set) never.
local function fade(prefix, key, tag)
  if tag:byte(3) >= 56 then
    redis.call('EXPIRE', key, 604800)
  elseif not lives(prefix, prefix .. 'c' .. tag) then
    redis.call('EXPIRE', key, 600)
  end
end

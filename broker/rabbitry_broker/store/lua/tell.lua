-- Put an entry on a client's inbox, if the client lives.
-- ARGV: sign of life, inbox, entry
local sign, inbox, entry = unpack(ARGV, 1, 3)
if redis.call('EXISTS', sign) == 0 then return 0 end
added('RPUSH', inbox, entry)
return 1

-- Put an entry on a client's inbox, if the client lives.
-- ARGV: sign of life, inbox, entry
if redis.call('EXISTS', ARGV[1]) == 0 then return 0 end
added('RPUSH', ARGV[2], ARGV[3])
return 1

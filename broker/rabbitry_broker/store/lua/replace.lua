-- Replace a value if nobody has changed it meanwhile; its time to live stays.
-- ARGV: key, what it was, what it shall be.
-- Returns 1 if it has what it shall be (this may run again if its reply was lost).
local key, old, new = unpack(ARGV)
local stands = redis.call('GET', key)
if stands == new then return 1 end
if stands ~= old then return 0 end
redis.call('SET', key, new, 'KEEPTTL')
return 1

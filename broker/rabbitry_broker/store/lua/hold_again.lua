-- A client holds what is in the store already.
-- ARGV: prefix, what the client holds, sign of life, client id, '1' if for detached tasks, hash, ... (in hexadecimal digits)
-- Returns the hashes that are not there. May run twice.
local prefix, of_client, sign, client, detached = unpack(ARGV, 1, 5)
local FIRST_DIGEST = 6
local TEN_YEARS = 315360000000
local alive = lives(prefix, sign)
local missing = {}
for i = FIRST_DIGEST, #ARGV do
  local func = prefix .. 'f:' .. ARGV[i]
  if redis.call('EXISTS', func) == 0 then
    missing[#missing + 1] = ARGV[i]
  elseif alive or detached == '1' then
    local holders = prefix .. 'u:' .. ARGV[i]
    -- It may be about to end. PERSIST is not among the commands of a driver; this is as good.
    redis.call('PEXPIRE', func, TEN_YEARS)
    redis.call('PEXPIRE', holders, TEN_YEARS)
    if alive then
      added('SADD', of_client, (ARGV[i]:gsub('%x%x', function(two) return string.char(tonumber(two, 16)) end)))
      added('SADD', holders, 'c' .. client)
    end
    if detached == '1' then added('SADD', holders, 'd') end
  end
end
return missing

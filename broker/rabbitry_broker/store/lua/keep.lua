-- Keep the signs of life of many clients, of those that have one: who holds no object never had any.
-- ARGV: clients, milliseconds, then for each its sign of life, its id
-- See renew.lua, which this is for one.
local clients, milliseconds = unpack(ARGV, 1, 2)
local ids = {}
for i = 4, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local time = redis.call('TIME')
local ends = string.format('%.6f', time[1] + time[2] / 1000000 + milliseconds / 1000)
local noted = {}
for i, score in ipairs(redis.call('ZMSCORE', clients, unpack(ids))) do
  if score and score ~= '-inf' then
    local sign = ARGV[1 + 2 * i]
    -- PEXPIRE works also while Redis is full.
    if redis.call('PEXPIRE', sign, milliseconds) == 0 then redis.call('SET', sign, '1', 'PX', milliseconds) end
    noted[#noted + 1] = ends
    noted[#noted + 1] = ids[i]
  end
end
if #noted > 0 then redis.pcall('ZADD', clients, unpack(noted)) end

-- Read a queue of several levels, the higher first, without waiting.
-- ARGV from 4: consumer, how many, stream of the highest level, of the next, ...
-- Returns a list of {stream, entries}, as XREADGROUP does; the error of a level that is gone only if nothing was read
-- before it: what was read is pending in the consumer's name, and nobody else would ever hear of it.
local room, taken = tonumber(ARGV[5]), {}
for i = 6, #ARGV do
  if room <= 0 then break end
  local read = redis.pcall('XREADGROUP', 'GROUP', GROUP, ARGV[4], 'COUNT', room, 'STREAMS', ARGV[i], '>')
  if read and read.err then
    if #taken == 0 then return read end
    break
  end
  if read then
    taken[#taken + 1] = read[1]
    room = room - #read[1][2]
  end
end
return taken

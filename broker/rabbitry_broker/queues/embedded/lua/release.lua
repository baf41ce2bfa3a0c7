-- Put back entries that a consumer holds.
-- ARGV from 4: queue, level, '1' if nobody has looked at them, id, ...
local ids = {}
for i = 7, #ARGV do ids[#ids + 1] = ARGV[i] end
return put_back(ARGV[4], ARGV[5], ids, ARGV[6] == '1')

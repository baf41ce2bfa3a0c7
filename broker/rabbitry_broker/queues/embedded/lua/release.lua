-- Put back entries that a consumer holds.
-- ARGV from 4: queue, level, id, ...
local ids = {}
for i = 6, #ARGV do ids[#ids + 1] = ARGV[i] end
return put_back(ARGV[4], ARGV[5], ids)

-- Put back what dead consumers hold of some queues.
-- ARGV from 4: queue, ...
-- Returns how many entries.
local moved = 0
for i = 4, #ARGV do moved = moved + rescue(ARGV[i], '', {}) end
return moved

-- Somebody holds some functions no more.
-- ARGV: prefix, who, milliseconds that they are kept for if nobody else does, hash, ... (in hexadecimal digits)
local prefix, holder, milliseconds = unpack(ARGV, 1, 3)
local FIRST_DIGEST = 4
for i = FIRST_DIGEST, #ARGV do unheld(prefix, ARGV[i], holder, milliseconds) end

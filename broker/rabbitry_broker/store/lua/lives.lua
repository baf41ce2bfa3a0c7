-- Does the client with this sign of life count as living?
-- Who has not renewed its lease lives all the same until somebody begins to clear up after it: while Redis was away
-- nobody could renew one.
local function lives(prefix, key)
  if redis.call('EXISTS', key) == 1 then return true end
  local id = key:match('{(%x+)}$'):gsub('%x%x', function(two) return string.char(tonumber(two, 16)) end)
  local score = redis.call('ZSCORE', prefix .. 'clients', id)
  return score and score ~= '-inf'
end

-- A node with work that waits looks which others changed, between two signs of life.
-- ARGV: prefix, the node in hex, since when changes are read, and those of rooms; how many of each at most
-- Returns {changes, rooms}
local prefix, hex, since, rooms_since, limit = unpack(ARGV, 1, 5)
return {
  nodes_changed(prefix, prefix .. 'nodes:changes', since, limit, hex),
  nodes_changed(prefix, prefix .. 'nodes:rooms', rooms_since, limit, hex),
}

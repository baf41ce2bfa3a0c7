-- Publish a message on the embedded engine, whose queues are streams of this server (see queues/embedded/streams.py for
-- their keys), and see to it that nodes read it: a publisher announces the queues that it begins with and the levels of
-- priority that begin to exist, but this message comes by no publisher.
local function publish_here(prefix, queue, priority, body)
  -- Other nodes look after the queue of one that is gone for a while only: it is announced each time.
  local node = queue:match('^node%.(.*)')
  if added('SADD', prefix .. 'queues', queue) == 1 or (node and redis.call('EXISTS', prefix .. 'n:' .. node) == 0) then
    redis.call('ZREM', prefix .. 'queues:retired', queue)
    redis.call('PUBLISH', prefix .. 'queues:new', queue)
  end
  local stream = prefix .. 'q:' .. queue
  if priority ~= '0' then
    local level = ':p' .. priority
    stream = stream .. level
    if added('SADD', prefix .. 'ql:' .. queue, level) == 1 then
      redis.pcall('XGROUP', 'CREATE', stream, 'nodes', '0', 'MKSTREAM')
      for _, consumer in ipairs(redis.call('ZRANGE', prefix .. 'qc', 0, -1)) do
        redis.call('XADD', prefix .. 'qn:' .. consumer, 'MAXLEN', '~', 1000, '*', 'q', queue)
      end
    end
  end
  redis.call('XADD', stream, '*', 'b', body)
end

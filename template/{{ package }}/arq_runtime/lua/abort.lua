-- Aborts a job. One that waits is taken from its queue, and its result is that it was
-- cancelled; one that runs, or whose queue is not known here, is marked for its worker.
-- Goes below control.lua, wake.lua and gather.lua.
--
-- KEYS: queues in which it may be
-- ARGV: id; the job, as it was read; its result; for how long that is kept, in ms
--       (0 not at all, -1 for ever)
-- Reply: gone, changed (since it was read), aborted or marked
local id, content, cancelled, keep = unpack(ARGV)
local found = redis.call('get', job .. id)
if not found then
  redis.call('zrem', aborts, id)
  return 'gone'
end
if redis.call('exists', in_progress .. id) == 0 then
  if found ~= content then return 'changed' end
  for _, name in ipairs(KEYS) do
    queue = name
    if redis.call('zrem', queue, id) == 1 then
      redis.call('del', job .. id, retry .. id, log .. id)
      leave(limits_of(found), id)
      redis.call('zrem', aborts, id)
      if keep ~= '0' then
        redis.call('set', result .. id, cancelled,
          unpack(keep == '-1' and {} or {'PX', keep}))
      end
      has_ended(id)
      redis.pcall('publish', done .. id, '')
      return 'aborted'
    end
  end
end
redis.call('zadd', aborts, now, id)
return 'marked'

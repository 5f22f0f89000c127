-- Enqueues a run of a cron job, unless another worker has done so. Goes below
-- control.lua and wake.lua.
--
-- KEYS: queue, mark of this run
-- ARGV: job id; when it is due, in ms since 1970; ms until it expires after that; the
--       job; for how long the mark stays, in ms, if it is to run once over all workers
local run = KEYS[2]
local id, due, expires, payload, keep_mark = unpack(ARGV)
if keep_mark ~= '0' and not redis.call('set', run, now, 'NX', 'PX', keep_mark) then
  return
end
if redis.call('exists', job .. id, result .. id) > 0 then return end
redis.call('set', job .. id, payload, 'PX', math.max(due - now, 0) + expires)
line_up(id, tonumber(due), limits_of(payload))
wake_up(queue .. ':wake', 1)

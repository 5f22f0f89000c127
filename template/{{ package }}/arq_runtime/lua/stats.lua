-- Counts the jobs of a queue. Goes below look.lua.
--
-- KEYS: queue, workers, failed set, paused flag
-- ARGV: what a worker's key begins with; how many jobs to look at, at most
-- Reply: queued, deferred, running, failed; for how many ms the oldest queued one has
--        waited; is it paused; what each worker says of itself, in JSON;
--        what is kept of cron jobs, by name and what it is; how many failed jobs were
--        dropped, by task
local paused = KEYS[4]
local function look(...)
  local running, oldest, found = 0, now, redis.call(...)
  for i = 1, #found, 2 do
    if is_running(found[i]) then
      running = running + 1
    else
      oldest = math.min(oldest, math.max(found[i + 1], 0))
    end
  end
  return running, oldest
end
local ahead = look('zrevrangebyscore', queue, now + lease, '(' .. exact_now,
  'WITHSCORES', 'LIMIT', 0, most)
local behind, oldest = look('zrangebyscore', queue, '-inf', exact_now, 'WITHSCORES',
  'LIMIT', 0, most / 10)
local crons = redis.pcall('hgetall', queue .. ':crons')
local dropped = redis.pcall('hgetall', failed .. ':dropped')
local due = redis.call('zcount', queue, '-inf', exact_now)
return {
  due - behind,
  redis.call('zcard', queue) - due - ahead,
  ahead + behind,
  redis.call('zcard', failed),
  now - oldest,
  redis.call('exists', paused),
  records,
  crons.err and {} or crons,
  dropped.err and {} or dropped,
}

-- Counts the jobs of a queue. Goes below workers.lua.
--
-- KEYS: queue, failed set, workers, paused flag
-- ARGV: as workers.lua
-- Reply: queued, deferred, running, failed; since when the oldest queued one is due, in
--        ms since 1970, or 0; is it paused; now, in ms; what each worker says of itself,
--        in JSON, and when it was last seen; what is kept of cron jobs, by name and what
--        it is; how many failed jobs were dropped, by task
local failed, paused = KEYS[2], KEYS[4]
local running, ahead, behind = running_jobs(), 0, {}
for _, one in ipairs(running) do
  if tonumber(redis.call('zscore', queue, one[1])) > instant then
    ahead = ahead + 1
  else
    behind[one[1]] = true
  end
end
local due = redis.call('zcount', queue, '-inf', exact_now)
local oldest = 0
local first = redis.call('zrangebyscore', queue, '-inf', exact_now, 'WITHSCORES',
  'LIMIT', 0, 101)
for i = 1, #first, 2 do
  if not behind[first[i]] then
    oldest = math.max(first[i + 1], 0)
    break
  end
end
local crons = redis.pcall('hgetall', queue .. ':crons')
local dropped = redis.pcall('hgetall', failed .. ':dropped')
return {
  due - (#running - ahead),
  redis.call('zcard', queue) - due - ahead,
  #running,
  redis.call('zcard', failed),
  string.format('%.0f', oldest),
  redis.call('exists', paused),
  now,
  records,
  crons.err and {} or crons,
  dropped.err and {} or dropped,
}

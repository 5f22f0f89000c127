-- Counts the jobs of a queue. Goes below workers.lua.
--
-- KEYS: queue, failed set, workers, paused flag
-- ARGV: as workers.lua
-- Reply: queued, deferred, running, failed; since when the oldest queued one is due, in
--        ms since 1970, or 0; is it paused; now, in ms; what each worker says of itself,
--        in JSON, and when it was last seen; what is kept of cron jobs, by name and what
--        it is; how many failed jobs were dropped, by task; how many jobs wait for each
--        limit, of 100 at most
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
for _, from in ipairs({'-inf', instant - STEP / 2}) do  -- then those without a priority
  local first = redis.call('zrangebyscore', queue, from, exact_now, 'WITHSCORES',
    'LIMIT', 0, 101)
  for i = 1, #first, 2 do
    if not behind[first[i]] then
      local at = math.max(due_of(tonumber(first[i + 1])), 0)
      oldest = oldest > 0 and math.min(oldest, at) or at
      break
    end
  end
end
local parked, lines = redis.call('zcount', queue, PARKED, BEYOND), {}
for _, name in ipairs(redis.pcall('zrange', queue .. ':looks', 0, 99)) do
  local line = queue .. ':line:' .. name
  local since = tonumber(redis.pcall('zrange', line, 0, 0, 'WITHSCORES')[2])
  if since then
    oldest = oldest > 0 and math.min(oldest, since) or since
    lines[#lines + 1] = name
    lines[#lines + 1] = redis.call('zcard', line)
  end
end
local crons = redis.pcall('hgetall', queue .. ':crons')
local dropped = redis.pcall('hgetall', failed .. ':dropped')
return {
  due - (#running - ahead) + parked,
  redis.call('zcard', queue) - due - ahead - parked,
  #running,
  redis.call('zcard', failed),
  string.format('%.0f', oldest),
  redis.call('exists', paused),
  now,
  records,
  crons.err and {} or crons,
  dropped.err and {} or dropped,
  lines,
}

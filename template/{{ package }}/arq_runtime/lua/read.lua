-- What there is of some jobs.
--
-- KEYS: queue, failed set
-- ARGV: the bytes beyond which of a stored job or result there is no more than its
--       beginning, and of all else no more than a list shows; 0 for all there is; ids
-- Reply: now, in ms since 1970, exactly; for each its score in the queue, its score
--        among the failed; stored job, result; is it running; tries; progress; of a
--        failed one task, tries, error, reason, traceback, what it has logged, when it
--        began and ended, its stored job; the errors of its tries; what it has logged, if
--        it runs. A large one is its size and beginning.
local queue, failed = KEYS[1], KEYS[2]
local large = tonumber(ARGV[1])

local function stored(key)
  local size = redis.pcall('strlen', key)
  if type(size) ~= 'number' or size == 0 then return false end
  if large > 0 and size > large then return {size, redis.call('getrange', key, 0, 1023)} end
  return redis.call('get', key)
end

local function small(key)
  local found = redis.pcall('get', key)
  return type(found) == 'string' and found or false
end

local jobs = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local record = redis.pcall('hmget', failed_job .. id, 'task', 'tries', 'error',
    'reason', large == 0 and 'traceback' or 'none', large == 0 and 'log' or 'none',
    'st', 'ft')
  local payload = false
  if record.err or not record[1] then
    record = {}
  else
    payload = redis.call('hstrlen', failed_job .. id, 'job')
    payload = large > 0 and payload > large and {payload, ''}
      or redis.call('hget', failed_job .. id, 'job')
  end
  local its_errors = redis.pcall('lrange', errors .. id, large == 0 and -100 or -1, -1)
  jobs[#jobs + 1] = {
    redis.call('zscore', queue, id), redis.call('zscore', failed, id),
    stored(job .. id), stored(result .. id), redis.call('exists', in_progress .. id),
    small(retry .. id), small(progress .. id),
    record, payload, its_errors.err and {} or its_errors,
    large == 0 and small(log .. id),
  }
end
return {string.format('%.17g', instant), jobs}

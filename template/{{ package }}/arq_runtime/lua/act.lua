-- Acts on jobs, on each wholly or not at all: runs failed ones again, forgets them for an
-- hour, brings them back, runs deferred ones without more delay, or deletes waiting
-- ones. Goes below control.lua, wake.lua, gather.lua and failed.lua.
--
-- KEYS: queue, failed set, where idle workers wait, what this call was told already,
--       discarded set
-- ARGV: retry, discard, undiscard, run_now or purge; how long a job may wait, in ms; for how
--       long a discarded one can be had back, in ms; how many of them, the newest; who
--       acts; what they are discarded under, or ""; ids
-- Reply: on how many it has acted
local wake, told, discarded = unpack(KEYS, 3)
local action, expires, keep, most, by, batch = unpack(ARGV, 1, 6)
local count = tonumber(redis.call('get', told) or '')
if count then return count end
count = 0

-- Has it failed, and is it taken from the failed ones herewith?
local function take(id)
  return forget_failed(id, redis.call('hget', failed_job .. id, 'task') or '')
end

local actions = {}

function actions.retry(id)
  local payload = redis.call('hget', failed_job .. id, 'job') or ''
  if payload == '' or redis.call('exists', job .. id) == 1 or not take(id) then
    return false
  end
  redis.call('del', failed_job .. id, result .. id, retry .. id, progress .. id)
  redis.call('rpush', errors .. id,
    cjson.encode({try = 0, at = now, error = '', retried_by = by}))
  redis.call('ltrim', errors .. id, -100, -1)
  redis.call('pexpire', errors .. id, expires)
  redis.call('set', job .. id, payload, 'PX', expires)
  -- in order, as in enqueue.lua
  line_up(id, instant + count / 4096, limits_of(payload))
  return true
end

function actions.discard(id)
  if not take(id) then return false end
  local left = redis.call('pttl', failed_job .. id)
  if left ~= -2 then
    redis.call('hset', failed_job .. id, 'batch', batch, 'keep', left,
      'errors', cjson.encode(redis.call('lrange', errors .. id, 0, -1)))
    redis.call('rename', failed_job .. id, discarded_job .. id)
    redis.call('pexpire', discarded_job .. id, keep)
    redis.call('zadd', discarded, instant + count / 4096, id)
  end
  if redis.call('exists', job .. id) == 0 then  -- no other job has taken the id
    redis.call('del', result .. id, errors .. id, progress .. id)
  end
  return true
end

function actions.undiscard(id)
  local its_task, its_error, payload, traceback, at, left, its_errors, its_batch =
    unpack(redis.call('hmget', discarded_job .. id, 'task', 'error', 'job', 'traceback',
      'ft', 'keep', 'errors', 'batch'))
  if not its_task or redis.call('exists', job .. id, failed_job .. id, result .. id) > 0
      or batch ~= '' and its_batch ~= batch then
    return false
  end
  redis.call('rename', discarded_job .. id, failed_job .. id)
  redis.call('hdel', failed_job .. id, 'batch', 'keep', 'errors')
  redis.call('del', errors .. id)
  for _, one in ipairs(cjson.decode(its_errors)) do
    redis.call('rpush', errors .. id, one)
  end
  left = tonumber(left) > 0 and left or 2592000000
  redis.call('pexpire', failed_job .. id, left)
  redis.call('pexpire', errors .. id, left)
  redis.call('zrem', discarded, id)
  local size = 500 + #payload + #its_error + #traceback
  add_failed(id, its_task, at, size + redis.call('hstrlen', failed_job .. id, 'log'), left)
  return true
end

function actions.run_now(id)
  local due = tonumber(redis.call('zscore', queue, id) or 0)
  local is_parked = due >= PARKED and due < BEYOND
  if due <= instant or is_parked or redis.call('exists', in_progress .. id) == 1 then
    return false
  end
  line_up(id, instant, limits_of(redis.pcall('get', job .. id)))
  return true
end

function actions.purge(id)
  if redis.call('exists', in_progress .. id) == 1 or redis.call('zrem', queue, id) == 0 then
    return false
  end
  leave(limits_of(redis.pcall('get', job .. id)), id)
  redis.call('del', job .. id, retry .. id, errors .. id, progress .. id, unknown .. id,
    log .. id)
  redis.call('zrem', aborts, id)
  has_ended(id)
  redis.call('publish', done .. id, '')
  return true
end

for i = 7, #ARGV do
  if actions[action](ARGV[i]) then count = count + 1 end
end
if action == 'discard' and count > 0 then
  redis.call('zremrangebyscore', discarded, '-inf', now - keep)
  local beyond = redis.call('zcard', discarded) - most
  for _, id in ipairs(beyond > 0 and redis.call('zrange', discarded, 0, beyond - 1) or {}) do
    redis.call('del', discarded_job .. id)
    redis.call('zrem', discarded, id)
  end
  redis.call('pexpire', discarded, keep)
end
if count > 0 then
  redis.pcall('set', told, count, 'PX', 10000)
  wake_up(wake, count)
end
return count

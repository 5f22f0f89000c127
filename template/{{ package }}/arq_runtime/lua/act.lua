-- Acts on jobs, on each wholly or not at all: runs failed ones again, forgets them, or
-- runs deferred ones without more delay. Goes below wake.lua.
--
-- KEYS: queue, failed set, where idle workers wait, what this call was told already
-- ARGV: retry, discard or run_now; how long a job may wait, in ms; the task that they
--       must be of, or ""; ids
-- Reply: on how many it has acted
local queue, wake, sent = KEYS[1], KEYS[3], KEYS[4]
local action, expires, task = unpack(ARGV, 1, 3)
local count = tonumber(redis.call('get', sent) or '')
if count then return count end
count = 0

-- Has it failed, is it of the task, and is it taken from the failed ones herewith?
local function take(id)
  local its_task = redis.call('hget', failed_job .. id, 'task') or ''
  return (task == '' or its_task == task) and forget_failed(id, its_task)
end

local actions = {}

function actions.retry(id)
  local payload = redis.call('hget', failed_job .. id, 'job') or ''
  if payload == '' or redis.call('exists', job .. id) == 1 or not take(id) then
    return false
  end
  redis.call('del', failed_job .. id, result .. id, errors .. id, retry .. id,
    progress .. id)
  redis.call('set', job .. id, payload, 'PX', expires)
  redis.call('zadd', queue, instant + count / 4096, id)  -- in order, as in enqueue.lua
  return true
end

function actions.discard(id)
  if not take(id) then return false end
  redis.call('del', failed_job .. id)
  if redis.call('exists', job .. id) == 0 then  -- no other job has taken the id
    redis.call('del', result .. id, errors .. id, progress .. id)
  end
  return true
end

function actions.run_now(id)
  local due = tonumber(redis.call('zscore', queue, id) or 0)
  if due <= instant or redis.call('exists', in_progress .. id) == 1 then
    return false
  end
  redis.call('zadd', queue, instant, id)
  return true
end

for i = 4, #ARGV do
  if actions[action](ARGV[i]) then count = count + 1 end
end
if count > 0 then
  redis.pcall('set', sent, count, 'PX', 10000)
  wake_up(wake, count)
end
return count

-- Batches of jobs that another waits for. That one is in the queue from the beginning, as
-- a job that is due when the batch is given up; when the last of the batch has ended, it
-- is due at once. A job's id names its batch: so it is known of one that has expired, too.
-- Goes below control.lua and wake.lua, above the scripts that queue or end jobs.
--
-- A batch is a hash: the ids of its jobs that have not ended, and under `then` the id of
-- the job that waits.
local function batch_of(id)
  local name = string.find(id, '.', 1, true) and string.match(id, '^(.+)%.%d+$')
  return name and key('batch', name)
end

local function join(id, follower)
  local batch = batch_of(id)
  redis.call('hset', batch, 'then', follower, id, '')
  redis.call('pexpireat', batch, math.ceil(redis.call('zscore', queue, follower)))
end

-- A job has ended for good, whatever its end.
local function has_ended(id)
  local batch = batch_of(id)
  if not batch or redis.pcall('hdel', batch, id) ~= 1 or redis.call('hlen', batch) > 1 then
    return
  end
  local follower = redis.call('hget', batch, 'then')
  redis.call('del', batch)
  local due = tonumber(redis.call('zscore', queue, follower) or 0)
  -- Else it was aborted or deleted, or somebody had it run before.
  if due > instant and redis.call('exists', in_progress .. follower) == 0 then
    line_up(follower, instant, limits_of(redis.pcall('get', job .. follower)))
    wake_up(queue .. ':wake', 1)
  end
end

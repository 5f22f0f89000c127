-- The failed jobs that a queue keeps: all by time; those of each task by time; how many
-- bytes each has, and each task. Goes above what has the failed set as its second key.
local failed = KEYS[2]
local of_task, sizes, bytes = failed .. ':of:', failed .. ':sizes', failed .. ':bytes'

local function add_failed(id, task, at, size, keep)
  redis.pcall('zadd', failed, at, id)
  redis.pcall('zadd', of_task .. task, at, id)
  redis.pcall('hset', sizes, id, size)
  redis.pcall('hincrby', bytes, task, size)
  for _, key in ipairs({of_task .. task, sizes, bytes}) do
    redis.call('pexpire', key, keep)
  end
end

-- Is it failed no more? The record itself stays.
local function forget_failed(id, task)
  local size = redis.pcall('hget', sizes, id)
  if type(size) == 'string' then
    redis.call('hdel', sizes, id)
    redis.pcall('hincrby', bytes, task, -size)
  end
  redis.pcall('zrem', of_task .. task, id)
  return redis.pcall('zrem', failed, id) == 1
end

-- Another job has taken the id of a failed one, if there is one.
local function replace_failed(id)
  local task = redis.pcall('hget', failed_job .. id, 'task')
  if redis.call('del', failed_job .. id) == 1 then
    forget_failed(id, type(task) == 'string' and task or '')
  end
end

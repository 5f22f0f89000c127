-- Finds the jobs of a queue in one state: those due first come first; failed ones, the
-- newest. Goes below look.lua.
--
-- KEYS: queue, workers, failed set
-- ARGV: what a worker's key begins with; how many jobs to look at, at most; queued,
--       deferred, in_progress or failed; how many to leave out; how many to return;
--       their task, or ""; how its name looks in a stored job
-- Reply: ids
local state, offset, limit, task, stored = unpack(ARGV, 3)
local range = ({
  queued = {'zrangebyscore', queue, '-inf', exact_now},
  deferred = {'zrangebyscore', queue, '(' .. exact_now, '+inf'},
  in_progress = {'zrevrangebyscore', queue, now + lease, '-inf'},
  failed = {'zrevrangebyscore', failed, '+inf', '-inf'},
})[state]
local skip, found, gone = tonumber(offset), {}, {}

local function is_wanted(id)
  if state == 'failed' then
    if redis.call('exists', failed_job .. id) == 1 then
      return task == '' or redis.call('hget', failed_job .. id, 'task') == task
    end
    gone[#gone + 1] = id
    return false
  end
  return (state == 'in_progress') == is_running(id) and (task == ''
    or string.find(redis.call('getrange', job .. id, 0, 511), stored, 1, true))
end

for looked_at = 0, most - 1, 500 do
  local ids = redis.call(range[1], range[2], range[3], range[4],
    'LIMIT', looked_at, 500)
  for _, id in ipairs(ids) do
    if #found < tonumber(limit) and is_wanted(id) then
      if skip > 0 then skip = skip - 1 else found[#found + 1] = id end
    end
  end
  if #found == tonumber(limit) or #ids < 500 then break end
end
for _, id in ipairs(gone) do redis.pcall('zrem', failed, id) end
return found

-- Wakes idle workers: each waits for an entry of a list. There is one for each job, and
-- one more, should a worker be killed as it wakes; for busy ones, few are kept.
local function wake_up(wake, jobs)
  local there = redis.pcall('llen', wake)
  if type(there) ~= 'number' then return end
  for _ = there, math.min(jobs, 31) do redis.pcall('rpush', wake, '') end
end

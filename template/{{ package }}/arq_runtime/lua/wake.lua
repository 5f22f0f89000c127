-- Wakes idle workers: each waits for an entry of a list. There is one for each job, and
-- one more, should a worker be killed as it wakes; for busy ones, few are kept.
local function wake_up(wake, jobs)
  local there = redis.pcall('llen', wake)
  if type(there) ~= 'number' then return end
  local entries = {}
  for i = 1, math.min(jobs, 31) + 1 - there do entries[i] = '' end
  if entries[1] then redis.pcall('rpush', wake, unpack(entries)) end
end

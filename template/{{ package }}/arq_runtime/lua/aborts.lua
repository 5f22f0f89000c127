-- Reply: the ids of jobs to be aborted. Marks of jobs that are no more would stay for
-- ever, since arq's own clean-up never matches.
local ids = redis.call('zrange', aborts, 0, -1)
for _, id in ipairs(ids) do
  if redis.call('exists', job .. id) == 0 then redis.call('zrem', aborts, id) end
end
return ids

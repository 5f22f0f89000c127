-- Finds complete jobs among results, the newest first. Results have no index; how long
-- each is still kept tells which are the newest.
--
-- KEYS: results
-- ARGV: how the queue's name looks in a stored result; how the task's does, or ""
-- Reply: ids
local queue, task = unpack(ARGV)
local found = {}
for _, key in ipairs(KEYS) do
  local id = string.sub(key, #result + 1)
  if redis.call('exists', failed_job .. id) == 0
      and string.find(redis.call('getrange', key, -1023, -1), queue, 1, true)
      and string.find(redis.call('getrange', key, 0, 511), task, 1, true) then
    found[#found + 1] = {redis.call('pttl', key), id}
  end
end
table.sort(found, function(a, b) return a[1] > b[1] end)
local ids = {}
for i = 1, #found do ids[i] = found[i][2] end
return ids

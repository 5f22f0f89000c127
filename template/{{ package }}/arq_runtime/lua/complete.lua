-- Finds complete jobs among results. Results have no index; for how long each is still
-- kept tells which are the newest.
--
-- KEYS: results
-- ARGV: how the queue's name looks in a stored result; how the task's does, or ""; a
--       text that they must have, in lower case, or ""; the same as it is in JSON
-- Reply: for each that fits, for how many ms it is kept, and its id
local queue, task, text, in_json = unpack(ARGV)
local found = {}

-- No more of a large one is looked at than this.
local function has_text(id, key)
  local all = string.lower(id .. '\n' .. redis.call('getrange', key, 0, 65535))
  return string.find(all, text, 1, true) or string.find(all, in_json, 1, true)
end

for _, key in ipairs(KEYS) do
  local id = string.sub(key, #result + 1)
  if redis.call('exists', failed_job .. id) == 0
      and string.find(redis.call('getrange', key, -1023, -1), queue, 1, true)
      and string.find(redis.call('getrange', key, 0, 511), task, 1, true)
      and (text == '' or has_text(id, key)) then
    found[#found + 1] = {redis.call('pttl', key), id}
  end
end
return found

-- Some failed jobs of a queue, by task and kind of error. Goes below mask.lua.
--
-- KEYS: queue, failed set
-- ARGV: ids
-- Reply: for each group the task, the error, how many, when the first and the last
--        failed, in ms since 1970
local groups, by_name = {}, {}
for _, id in ipairs(ARGV) do
  local task, text, at = unpack(redis.call('hmget', failed_job .. id, 'task', 'error', 'ft'))
  if task then
    text = mask(text or '')
    local name = task .. '\0' .. text
    local group = by_name[name]
    if not group then
      group = {task, text, 0, at, at}
      by_name[name], groups[#groups + 1] = group, group
    end
    group[3], group[5] = group[3] + 1, at
  end
end
return groups

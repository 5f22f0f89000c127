-- Puts jobs on a queue: one round trip for any number, by Redis' own clock, and no race
-- between two clients with the same job id. Goes below control.lua, wake.lua and
-- gather.lua.
--
-- KEYS: queue, failed set, where idle workers wait, what this call was told already
-- ARGV: six for each job: id; "" for a new id, "own" for one of the caller's, "replace"
--       to take the place of a job that waits or has ended, "gathered" for one of the
--       batch that the last job before waits for; milliseconds from now; or when it is
--       due, in milliseconds since 1970; milliseconds until it expires; the job. An id of "" is skipped.
-- Reply: for each job "1" where it is queued, "0" where its id is taken
--
-- Under `maxmemory` and `noeviction`, Redis refuses a script's first write if that needs
-- memory, and no later one: so it takes all jobs or none.
local wake, told = unpack(KEYS, 3)
local function is_taken(id, own)
  if id == '' or own == '' then return id == '' end
  local has_job = redis.call('exists', job .. id) == 1
  if own == 'own' then return has_job or redis.call('exists', result .. id) == 1 end
  return has_job and (redis.call('exists', in_progress .. id) == 1
    or not redis.call('zscore', queue, id))
end

-- What the reply is mostly, and the look whether there was one before, in one command.
local usual = string.rep('1', #ARGV / 6)
if not redis.call('set', told, usual, 'NX', 'PX', 10000) then
  return redis.call('get', told)
end
local reply = {}
local queued, follower = 0, nil
for i = 1, #ARGV, 6 do
  local id, own, delay, due, expires, content = unpack(ARGV, i, i + 5)
  local taken
  if own == 'gathered' then
    taken = not follower or id == ''
  else
    taken = is_taken(id, own)
    follower = not taken and id
  end
  if not taken then
    local before = own == 'replace' and redis.pcall('get', job .. id)
    redis.call('psetex', job .. id, expires, content)
    if own == 'gathered' then
      join(id, follower)
    elseif own ~= '' then
      replace_failed(id)
      redis.call('del', result .. id, retry .. id, errors .. id, progress .. id)
      redis.pcall('zrem', aborts, id)
      leave(limits_of(before), id)
    end
    -- A fraction of a millisecond for the place in the batch: those of one moment start
    -- in the order in which they came.
    local at = due ~= '0' and tonumber(due) or instant + delay + #reply / 4096
    line_up(id, at, limits_of(content))
    queued = queued + 1
  end
  reply[#reply + 1] = taken and '0' or '1'
end
reply = table.concat(reply)
if reply ~= usual then redis.call('set', told, reply, 'PX', 10000) end
if queued > 0 then wake_up(wake, queued) end
return reply

-- Looks at some jobs of a queue in one state: those due first come first, and those that
-- wait for a limit last; of the failed ones, the newest. Looks at few enough not to hold up Redis. Goes below mask.lua.
--
-- KEYS: queue, failed set
-- ARGV: queued, deferred, failed, oldest (of the failed), or ids, which are given; from
--       which place; how many to look at; the task that they must be of; how its name
--       looks in a stored job; a text that they must have, in lower case; the same as it
--       is in JSON; a text that the error must have; what it must be without numbers
--       and quotes; since and until when they must have failed or be due, in ms since
--       1970; ids. What is "" or 0 need not be
-- Reply: ids that fit; at how many it has looked; how many there are
local queue, failed = KEYS[1], KEYS[2]
local state, from, most = unpack(ARGV, 1, 3)
local task, stored, text, in_json, error_text, group = unpack(ARGV, 4, 9)
local since, until_then = tonumber(ARGV[10]), tonumber(ARGV[11])
from, most = tonumber(from), tonumber(most)
local due = redis.call('zcount', queue, '-inf', string.format('%.17g', instant))
local total, ids, fit, gone, looked_at, bytes = 0, {}, {}, {}, 0, 0
-- In the queue, in this order: what is due, deferred, parked, and beyond all times.
local parked = redis.call('zcount', queue, PARKED, BEYOND)
local before = redis.call('zcount', queue, '-inf', '(' .. string.format('%.0f', PARKED))

local function in_two_parts(first, count, second)
  local start, last = first + from, first + math.min(from + most, count) - 1
  if from >= count then
    start, last = second + from - count, second + math.min(from + most, total) - count - 1
  end
  return last < start and {} or redis.call('zrange', queue, start, last, 'WITHSCORES')
end

if state == 'queued' then
  total = due + parked
  ids = in_two_parts(0, due, before)
elseif state == 'deferred' then
  total = redis.call('zcard', queue) - due - parked
  ids = in_two_parts(due, before - due, before + parked)
elseif state == 'failed' or state == 'oldest' then
  total = redis.call('zcard', failed)
  ids = redis.call(state == 'failed' and 'zrevrange' or 'zrange', failed, from,
    from + most - 1, 'WITHSCORES')
else
  for i = 12, #ARGV do
    ids[#ids + 1], ids[#ids + 2] = ARGV[i], now
  end
  total = #ARGV - 11
end
local is_failed = state == 'failed' or state == 'oldest'

local function has_text(id, payload, error)
  for _, one in ipairs({id, payload or '', error or ''}) do
    one = string.lower(one)
    if string.find(one, text, 1, true) or string.find(one, in_json, 1, true) then
      return true
    end
  end
end

-- No more of a large one is looked at than this.
local function start_of(id)
  local payload = redis.pcall('getrange', job .. id, 0, text == '' and 511 or 65535)
  payload = type(payload) == 'string' and payload or ''
  bytes = bytes + #payload
  return payload
end

local function fits_failed(id)
  local its_task, its_error = unpack(redis.call('hmget', failed_job .. id, 'task', 'error'))
  if not its_task then gone[#gone + 1] = id return false end
  its_error = its_error or ''
  if task ~= '' and its_task ~= task
      or group ~= '' and mask(its_error) ~= group
      or error_text ~= '' and not string.find(its_error, error_text, 1, true)
        and not string.find(mask(its_error), error_text, 1, true) then
    return false
  end
  if text == '' or has_text(id, its_task, its_error) then return true end
  local payload = redis.call('hstrlen', failed_job .. id, 'job') <= 65536
    and redis.call('hget', failed_job .. id, 'job') or ''
  bytes = bytes + #payload
  return has_text('', payload)
end

local function fits(id)
  if is_failed then return fits_failed(id) end
  if (state == 'ids') ~= (redis.call('exists', in_progress .. id) == 1) then
    return false
  end
  if task == '' and text == '' then return true end
  local payload = start_of(id)
  if task ~= '' and not string.find(string.sub(payload, 1, 512), stored, 1, true) then
    return false
  end
  return text == '' or has_text(id, payload)
    or has_text('', nil, redis.call('lindex', errors .. id, -1))
end

for i = 1, #ids, 2 do
  local at = tonumber(ids[i + 1])
  at = at >= PARKED and at < BEYOND and at % PARKED or due_of(at)
  if state == 'failed' and at < since or state == 'oldest' and until_then > 0 and at > until_then then
    looked_at = total - from  -- those that follow are none, either
    break
  end
  if at >= since and (until_then == 0 or at <= until_then) and fits(ids[i]) then fit[#fit + 1] = ids[i] end
  looked_at = looked_at + 1
  if bytes > 1000000 then break end
end
for _, id in ipairs(gone) do redis.pcall('zrem', failed, id) end
return {fit, looked_at, total}

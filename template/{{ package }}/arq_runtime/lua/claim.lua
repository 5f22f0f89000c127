-- Takes up to `free` due jobs, each for the length of a lease, and returns all that is
-- needed to run them. A running job's score in the queue is the end of its lease, so the
-- head of the queue is always free work. Goes below wake.lua.
--
-- KEYS: queue, paused flag, the worker's last claim
-- ARGV: token; how many; lease, in ms; how long jobs are kept, in ms; until when this
--       claim holds, in ms since 1970; bytes that the reply may have; from which try on
--       a job whose worker was killed runs apart; "1" where such a one may be taken
-- Reply: jobs; length of the queue; ms until the next is due; number of abort marks;
--        is it paused; now, in ms. A job: id, score, payload (or its size, if that is
--        too large for the reply), try, abort mark, last error, 1 if it runs apart.
--
-- Here and below, replies of the wrong type are tables: what others have left in Redis
-- must not stop the queue.
local queue, paused, last_claim = unpack(KEYS)
local token, free, lease, keep, valid_until, room, apart_from, may_apart = unpack(ARGV)
-- Held up on its way by an outage, it would take what other workers renew after it.
free = now <= tonumber(valid_until) and tonumber(free) or 0
room, apart_from = tonumber(room), tonumber(apart_from)
local jobs, taken, bytes, is_full = {}, {}, 0, false

-- The same token again: the answer to it was lost, so what it took is given back.
if redis.call('getrange', last_claim, 0, #token - 1) == token then
  for _, taken_job in ipairs(cjson.decode(
      string.sub(redis.call('get', last_claim), #token + 1))) do
    local id, due, try = unpack(taken_job)
    if redis.pcall('get', in_progress .. id) == token then
      redis.call('del', in_progress .. id)
      redis.call('set', retry .. id, try - 1, 'PX', keep)
      redis.call('zadd', queue, due, id)
    end
  end
end

local function was_killed(try, last_error)
  if try < apart_from then return false end
  local is_json, failure = pcall(cjson.decode, last_error or '{}')
  local failed_try = is_json and type(failure) == 'table' and tonumber(failure.try) or 0
  return failed_try < try - 1
end

local function take(id, score, payload, try, last_error, apart)
  redis.call('pexpire', job .. id, keep)
  redis.call('set', retry .. id, try, 'PX', keep)
  redis.call('set', in_progress .. id, token, 'PX', lease)
  redis.call('zadd', queue, now + lease, id)
  jobs[#jobs + 1] = {id, score, payload, try, 0, last_error, apart and 1 or 0}
  taken[#taken + 1] = {id, score, try}
end

local is_paused = redis.call('exists', paused)
local marks = redis.pcall('zcard', aborts)
marks = type(marks) == 'number' and marks or 0
local looked_at, limit = 0, 1000
while free > 0 and is_paused == 0 and looked_at < limit and not is_full do
  local due = redis.call('zrangebyscore', queue, '-inf', instant, 'WITHSCORES', 'LIMIT', 0,
    math.min(free, limit))
  if #due == 0 then break end
  redis.call('del', last_claim)
  for i = 1, #due, 2 do
    local id, score = due[i], due[i + 1]
    local held = redis.call('pttl', in_progress .. id)
    if held > 0 then
      -- A worker of arq's own runs it. Out of the way, but not for long: when that
      -- worker is stopped, the job is free again.
      redis.call('zadd', queue, now + math.min(held, 10000), id)
    else
      local try = redis.pcall('get', retry .. id)
      try = (type(try) == 'string' and tonumber(try) or 0) + 1
      local last_error = try > 1 and redis.pcall('lindex', errors .. id, -1)
      if type(last_error) == 'table' then last_error = false end
      local apart = was_killed(try, last_error)
      local payload = redis.pcall('get', job .. id)
      if type(payload) == 'table' then payload = '' end
      local size = payload and #payload or 0
      if #jobs > 0 and bytes + size > room then
        is_full = true
        break
      elseif apart and may_apart ~= '1' then
        redis.call('zadd', queue, now + 1000, id)
      else
        if apart then may_apart = '0' end
        bytes = bytes + size
        take(id, score, size > room and size or payload, try, last_error, apart)
        if marks > 0 and redis.call('zscore', aborts, id) then jobs[#jobs][5] = 1 end
        free = free - 1
      end
    end
  end
  looked_at = looked_at + #due / 2
end
if #taken > 0 then
  redis.call('set', last_claim, token .. cjson.encode(taken), 'PX', lease)
end
-- Idle workers wait for the list's entries: none is left where no job is, and there is
-- one where some are left to others.
local wake = queue .. ':wake'
if is_paused == 0 then
  if looked_at >= limit or is_full or free <= 0
      and #redis.call('zrangebyscore', queue, '-inf', instant, 'LIMIT', 0, 1) > 0 then
    wake_up(wake, 0)
  else
    redis.call('del', wake)
  end
end
local next = redis.call('zrangebyscore', queue, '(' .. string.format('%.17g', instant),
  '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local wait = (looked_at >= limit or is_full) and 0 or next[2] and next[2] - now or 3600000
return {jobs, redis.call('zcard', queue), math.min(wait, 3600000), marks, is_paused, now}

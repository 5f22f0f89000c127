-- Records how tries of jobs have ended: results, failures, retries. Goes below control.lua,
-- wake.lua, gather.lua, failed.lua and lease.lua.
--
-- KEYS: queue, failed set, how the worker recorded what ended last
-- ARGV: token; how long jobs, and failed ones, are kept, in ms; how many failed ones of
--       a task, and bytes of them in the queue; pause of a job whose task is not known,
--       in ms; ten for each end: id; token; try; complete, failed, retry, release
--       or unknown; ms until the next try (of "release", when it was due; of "unknown",
--       for how long it is left to others); result; for how long that is kept, in ms
--       ("0" for ever, "" not at all); details, in JSON; the job, where Redis may have
--       lost it; its end, with its limits
-- Reply: for each end 0 another worker has it, 1 recorded, 2 recorded without its
--        result, for which there is no room, 3 not left to others any longer, 4 to be
--        sent again with the job: Redis has lost it. Then how many failed jobs were
--        dropped to make room, by task, in JSON
local last_ends = KEYS[3]
local token, keep, keep_failed, max_failed, max_bytes, unknown_pause = unpack(ARGV, 1, 6)
local DONE, DROPPED, REFUSED, SEND_AGAIN = 1, 2, 3, 4

-- The same token again: all has been recorded, and the answer to it was lost.
if redis.call('getrange', last_ends, 0, #token - 1) == token then
  return cjson.decode(string.sub(redis.call('get', last_ends), #token + 1))
end

local function remember(id, try, text, px)
  if #text > 1000 then  -- without half a character at the end
    text = string.gsub(string.sub(text, 1, 1000), '[\192-\255][\128-\191]*$', '')
  end
  redis.pcall('rpush', errors .. id,
    cjson.encode({try = tonumber(try), at = now, error = text}))
  redis.pcall('ltrim', errors .. id, -100, -1)
  redis.call('pexpire', errors .. id, px)
end

local failing = {}  -- the tasks of those that fail now
local has_aborts = redis.call('exists', aborts) == 1

local function finish(id, try, what, details, value, px, limits)
  local payload = what == 'failed' and redis.pcall('get', job .. id)
  local lines = details.log or what == 'failed' and redis.pcall('get', log .. id)
  local gone = {job .. id, unknown .. id, log .. id}
  if px == '' and try ~= '1' then  -- a worker that has lost its lease is to see this
    redis.call('pexpire', retry .. id, 3600000)
  else
    gone[#gone + 1] = retry .. id
  end
  if details.hold then
    redis.call('pexpire', in_progress .. id, details.hold)
  else
    gone[#gone + 1] = in_progress .. id
  end
  redis.call('del', unpack(gone))
  redis.pcall('zrem', queue, id)
  if limits.priority > 0 then redis.pcall('zrem', queue .. ':looks', '\0' .. id) end
  if has_aborts then redis.pcall('zrem', aborts, id) end
  replace_failed(id)
  local stored = px == '' or redis.pcall('set', result .. id, value,
    unpack(px == '0' and {} or {'PX', px}))
  if what == 'failed' and tonumber(keep_failed) > 0 then
    payload = type(payload) == 'string' and payload or ''
    lines = type(lines) == 'string' and lines or ''
    redis.call('hset', failed_job .. id,
      'task', details.task, 'job', payload, 'tries', try,
      'error', details.error, 'traceback', details.traceback,
      'reason', details.reason, 'st', details.st, 'ft', now, 'log', lines)
    redis.call('pexpire', failed_job .. id, keep_failed)
    add_failed(id, details.task, now,
      500 + #payload + #details.error + #details.traceback + #lines, keep_failed)
    failing[details.task] = true
    remember(id, try, details.error, keep_failed)
  elseif try ~= '1' then
    redis.call('pexpire', errors .. id, tonumber(px) or 0)
  end
  if details.cron then
    redis.pcall('hset', queue .. ':crons', details.cron .. ':last', cjson.encode({
      job_id = id, outcome = details.outcome, started = details.st, finished = now}))
    redis.pcall('pexpire', queue .. ':crons', 34560000000)
  end
  if details.progress then
    if px == '0' then
      redis.call('persist', progress .. id)
    else
      redis.call('pexpire', progress .. id, tonumber(px) or 0)
    end
  end
  has_ended(id)
  redis.pcall('publish', done .. id, '')
  return type(stored) == 'table' and stored.err and DROPPED or DONE
end

local answers, lines = {}, 0

local function give_back(id, score, try, limits, px)
  lines = lines + 1
  redis.call('del', in_progress .. id)
  line_up(id, tonumber(score), limits)
  redis.call('pexpire', job .. id, px)
  redis.call('set', retry .. id, try, 'PX', px)
end

for i = 7, #ARGV, 10 do
  local id, job_token, try, what, ms, value, px, details, lost, control =
    unpack(ARGV, i, i + 9)
  details = details == '' and {} or cjson.decode(details)
  local answer, limits = DONE, limits_of(control)
  local owner = whose(id, job_token, try)
  if owner == GONE and lost ~= '' then
    -- An older dump may have the job, and another may have been given its id.
    redis.call('del', unknown .. id)
    local there = redis.pcall('get', job .. id)
    if there and there ~= lost then
      owner = LOST
    elseif what ~= 'complete' then
      redis.call('set', job .. id, lost, 'PX', keep)
    end
  end
  if owner == LOST then
    answer = LOST
  elseif owner == GONE and lost == '' then
    answer = SEND_AGAIN
  elseif what == 'complete' or what == 'failed' then
    answer = finish(id, try, what, details, value, px, limits)
  elseif what == 'release' then
    local due = tonumber(ms)
    give_back(id, limits.priority > 0 and due_of(due) or due, try - 1, limits, keep)
  elseif what == 'unknown' then
    redis.call('pexpire', unknown .. id, keep)
    redis.pcall('set', unknown .. id, now, 'NX', 'PX', keep)
    local since = tonumber(redis.pcall('get', unknown .. id)) or now
    if now - since >= tonumber(ms) then
      answer = REFUSED
    else
      give_back(id, now + unknown_pause, try - 1, limits, keep)
    end
  else
    give_back(id, now + ms, try, limits, keep + ms)
    remember(id, try, details.error, keep + ms)
  end
  if answer ~= LOST and answer ~= SEND_AGAIN and answer ~= REFUSED then
    lines = lines + leave(limits, id, what == 'unknown' and job_token)
  end
  answers[#answers + 1] = answer
end
if lines > 0 then wake_up(queue .. ':wake', lines) end

local drops, room = {}, 1000  -- at once: Redis does nothing else meanwhile

local function drop_oldest(task)
  local id = redis.call('zrange', of_task .. task, 0, 0)[1]
  redis.call('del', failed_job .. id, errors .. id)
  forget_failed(id, task)
  drops[task] = (drops[task] or 0) + 1
  room = room - 1
end

for task in pairs(failing) do
  local mine = of_task .. task
  for _, id in ipairs(redis.pcall('zrangebyscore', mine, '-inf', now - keep_failed)) do
    forget_failed(id, task)
  end
  local beyond = (tonumber(redis.pcall('zcard', mine)) or 0) - max_failed
  for _ = 1, math.min(beyond, room) do drop_oldest(task) end
end
if next(failing) then
  redis.pcall('zremrangebyscore', failed, '-inf', now - keep_failed)
  local all, total, of = redis.pcall('hgetall', bytes), 0, {}
  for i = 1, #all, 2 do
    of[all[i]] = tonumber(all[i + 1])
    total = total + of[all[i]]
  end
  while total > tonumber(max_bytes) and room > 0 do
    local task  -- the one that has the most
    for one, size in pairs(of) do
      if not task or size > of[task] then task = one end
    end
    if (tonumber(redis.pcall('zcard', of_task .. task)) or 0) <= 1 then break end
    drop_oldest(task)
    local left = tonumber(redis.call('hget', bytes, task))
    total, of[task] = total - of[task] + left, left
  end
end
for task, count in pairs(drops) do
  redis.pcall('hincrby', failed .. ':dropped', task, count)
  redis.call('pexpire', failed .. ':dropped', keep_failed)
end
answers[#answers + 1] = cjson.encode(drops)
redis.pcall('set', last_ends, token .. cjson.encode(answers), 'PX', keep)
return answers

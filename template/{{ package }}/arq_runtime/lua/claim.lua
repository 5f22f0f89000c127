-- Takes up to `free` due jobs, each for the length of a lease, and returns all that is
-- needed to run them. A running job's score in the queue is the end of its lease, so the
-- head of the queue is always free work. Goes below control.lua and wake.lua.
--
-- KEYS: queue, paused flag, the worker's last claim
-- ARGV: token; how many; lease, in ms; how long jobs are kept, in ms; until when this
--       claim holds, in ms since 1970; bytes that the reply may have; from which try on
--       a job whose worker was killed runs apart; "1" where such a one may be taken; "1"
--       where the highest priority always comes first
-- Reply: jobs; 1 if the queue is empty; ms until the next is due; number of abort marks;
--        is it paused; now, in ms. A job: id, score, payload (or its size, if that is
--        too large for the reply), try, abort mark, last error, 1 if it runs apart, end of
--        a payload that is too large.
--
-- Here and below, replies of the wrong type are tables: what others have left in Redis
-- must not stop the queue.
local paused, last_claim = unpack(KEYS, 2)
local token, free, lease, keep, valid_until, room, apart_from, may_apart,
  is_strict = unpack(ARGV)
-- Held up on its way by an outage, it would take what other workers renew after it, and
-- give back what this one has been answered since.
local is_valid = now <= tonumber(valid_until)
free = is_valid and tonumber(free) or 0
room, apart_from = tonumber(room), tonumber(apart_from)
local jobs, taken, bytes, is_full = {}, {}, 0, false
local limit, looks = 500, queue .. ':looks'

-- The same token again: the answer to it was lost, so what it took is given back.
if is_valid and redis.call('getrange', last_claim, 0, #token - 1) == token then
  for _, taken_job in ipairs(cjson.decode(
      string.sub(redis.call('get', last_claim), #token + 1))) do
    local id, due, try = unpack(taken_job)
    if redis.pcall('get', in_progress .. id) == token then
      redis.call('del', in_progress .. id)
      redis.call('set', retry .. id, try - 1, 'PX', keep)
      redis.call('zadd', queue, due, id)
      leave(limits_of(redis.pcall('get', job .. id)), id, token)
    end
  end
end

local is_paused, marks, has_lines = 0, 0, false
if redis.call('exists', paused, aborts, looks) > 0 then
  is_paused = redis.call('exists', paused)
  marks = number(redis.pcall('zcard', aborts))
  has_lines = is_paused == 0 and redis.call('exists', looks) == 1
end
local may_claim, looked_at, wake = free > 0 and is_paused == 0, 0, queue .. ':wake'

-- Idle workers wait for the list's entries: none is left where no job is. This comes before
-- all other writes, since it needs no memory: after it, a full Redis takes those, too.
if is_paused == 0 then redis.call('del', wake) end
-- Most looks of idle workers find no job, and that is all then; most others find one
-- alone, and need not look again.
local head = redis.call('zrange', queue, 0, 1, 'WITHSCORES')
local is_empty, first, second = head[1] and 0 or 1, tonumber(head[2]), tonumber(head[4])
local is_due = first and first <= instant
if is_paused == 0 and not has_lines and not is_due then
  local wait = first and math.min(first - now, 3600000) or 3600000
  return {{}, is_empty, wait, marks, is_paused, now}
end
local is_single = is_due and not has_lines and not (second and second <= instant)

local function was_killed(try, last_error)
  if try < apart_from then return false end
  local is_json, failure = pcall(cjson.decode, last_error or '{}')
  local failed_try = is_json and type(failure) == 'table' and tonumber(failure.try) or 0
  return failed_try < try - 1
end

-- A job with a priority may be due by now: it goes before those that have a lower one.
local function rise(id)
  local score = tonumber(redis.call('zscore', queue, id) or PARKED)
  if score >= PARKED or due_of(score) ~= score then
    redis.pcall('zrem', looks, '\0' .. id)
  elseif score > instant then  -- it runs, or has been put off
    redis.pcall('zadd', looks, score, '\0' .. id)
  else
    line_up(id, score, limits_of(redis.pcall('get', job .. id)))
    redis.pcall('zrem', looks, '\0' .. id)
  end
end

-- Limits that are full, and until when at least; they stay so in this claim, however many
-- jobs wait for them.
local full = {}

-- Puts the first jobs of a line that may go on back into the queue.
local function go_on(name)
  full[name] = nil  -- so that `looks` has it again, should one wait still
  local id, score, wanted
  for _ = 1, limit do
    id, score = unpack(redis.pcall('zpopmin', key('line', name)))
    if not id then break end
    if tonumber(redis.call('zscore', queue, id) or 0) >= PARKED then
      redis.call('zadd', queue, score, id)
      local payload = redis.pcall('get', job .. id)
      if payload then  -- else it has expired
        for _, one in ipairs(wanted and {} or limits_of(payload)) do
          if one[1] == name then
            wanted = math.min(free, select(2, full_until(unpack(one))) or 1)
          end
        end
        wanted = (wanted or 1) - 1
        if wanted <= 0 then break end
      end
    end
  end
  if id then  -- Should nobody claim it for a while, another may.
    redis.pcall('zadd', looks, now + 1000, name)
  else
    redis.pcall('zrem', looks, name)
  end
end

local function look_around()
  for _, name in ipairs(redis.pcall('zrangebyscore', looks, '-inf', instant,
      'LIMIT', 0, 100)) do
    if string.byte(name) == 0 then rise(string.sub(name, 2)) else go_on(name) end
  end
end

-- Which of its limits a job has to wait for, if any, and until when at least.
local function blocked_by(limits, score)
  for i, one in ipairs(limits) do
    local name, known = one[1], full[one[1]]
    if known and known.most == one[2] then return i, known.at end
    local at, room_left = full_until(unpack(one))
    one.is_last = room_left == 1
    if at then
      full[name] = {most = one[2], at = at}
      redis.pcall('zadd', looks, at, name)
      return i, at
    end
    one.first = redis.pcall('zrange', key('line', name), 0, 0, 'WITHSCORES')[2]
    if one.first and tonumber(one.first) < tonumber(score) then return i end
  end
end

-- Limits that are for more jobs come later. Of the lines of such ones, the next may go
-- on, which has another key perhaps; of the others, this job was the first, and they go on
-- when it has been taken.
local function park(id, score, limits, i, at)
  redis.pcall('zadd', key('line', limits[i][1]), score, id)
  redis.call('zadd', queue, PARKED * i + math.max(0, math.floor(due_of(score))), id)
  for j, one in ipairs(limits) do
    if j ~= i then
      redis.pcall('zadd', looks, 'XX', j > i and now or now + 10000, one[1])
    elseif not at then
      redis.pcall('zadd', looks, 'NX', now, one[1])
    end
  end
end

local function take(id, score, payload, try, last_error, apart, limits)
  redis.call('pexpire', job .. id, keep)
  redis.call('set', retry .. id, try, 'PX', keep)
  redis.call('zadd', queue, now + lease, id)
  local is_large = payload and #payload > room
  jobs[#jobs + 1] = {id, score, is_large and #payload or payload, try, 0, last_error,
    apart and 1 or 0, is_large and string.sub(payload, -4096) or ''}
  taken[#taken + 1] = {id, score, try}
  if limits.priority > 0 then redis.pcall('zadd', looks, now + lease, '\0' .. id) end
  hold(limits, id, lease, keep)
  start(limits, id, token)
  for _, one in ipairs(limits) do
    if one.first then
      local at = one.is_last and full_until(unpack(one)) or now
      redis.pcall('zadd', looks, 'XX', at, one[1])
    end
  end
end

-- One job in ten is not one of those with the highest priority, but the oldest of the others.
local in_a_row, is_share
local function is_urgent(score)
  return instant - score > STEP / 2 and due_of(tonumber(score)) ~= tonumber(score)
end

local function with_a_share(due)
  in_a_row = in_a_row or tonumber(redis.pcall('get', queue .. ':in_a_row')) or 0
  local steps = math.floor((instant - due[2]) / STEP + 0.5)
  local share = {}
  if in_a_row >= 9 then
    for lower = steps - 1, 0, -1 do
      local middle = instant - lower * STEP
      local first = redis.call('zrangebyscore', queue, middle - STEP / 2,
        lower > 0 and middle + STEP / 2 or instant, 'WITHSCORES', 'LIMIT', 0, 1)
      if first[1] and (not share[1] or due_of(first[2] + 0) < due_of(share[2] + 0)) then
        share = first
      end
    end
    if share[1] then
      is_share = true
      return share
    end
    in_a_row = 0
  end
  for i = 1, math.min(#due, 2 * (9 - in_a_row)) do share[i] = due[i] end
  return share
end

-- Is it this worker's now?
local function lock(id)
  if redis.call('set', in_progress .. id, token, 'NX', 'PX', lease) then return true end
  local held = redis.call('pttl', in_progress .. id)
  if held > 0 then
    -- A worker of arq's own runs it. Out of the way, but not for long: when that worker
    -- is stopped, the job is free again.
    redis.call('zadd', queue, now + math.min(held, 10000), id)
    return false
  end
  return redis.call('set', in_progress .. id, token, 'PX', lease)
end

local function consider(id, score)
  local payload, try = unpack(redis.call('mget', job .. id, retry .. id))
  -- of a wrong type, or it has expired
  payload = payload or redis.call('exists', job .. id) == 1 and ''
  local limits = limits_of(payload)
  local blocking, at = blocked_by(limits, score)
  if blocking then
    park(id, score, limits, blocking, at)
    has_lines = true
    return
  end
  try = (tonumber(try or '') or 0) + 1
  local last_error = try > 1 and redis.pcall('lindex', errors .. id, -1)
  if type(last_error) == 'table' then last_error = false end
  local apart = was_killed(try, last_error)
  local size = payload and #payload or 0
  if #jobs > 0 and bytes + size > room then
    is_full = true
  elseif apart and may_apart ~= '1' then
    redis.call('zadd', queue, now + 1000, id)
  elseif lock(id) then
    if apart then may_apart = '0' end
    bytes = bytes + size
    take(id, score, payload, try, last_error, apart, limits)
    if marks > 0 and redis.call('zscore', aborts, id) then jobs[#jobs][5] = 1 end
    free = free - 1
    if in_a_row then
      in_a_row = is_urgent(score) and not is_share and in_a_row + 1 or 0
    end
  end
end

while free > 0 and may_claim and looked_at < limit and not is_full do
  if has_lines then look_around() end
  local most = math.min(free, limit)
  local due = {head[1], head[2]}
  if not is_single or looked_at > 0 then
    due = redis.call('zrangebyscore', queue, '-inf', instant, 'WITHSCORES', 'LIMIT', 0,
      most)
  end
  local found = #due
  if found == 0 then break end
  is_share = false
  if is_strict ~= '1' and is_urgent(due[2]) then due = with_a_share(due) end
  for i = 1, #due, 2 do
    consider(due[i], due[i + 1])
    if is_full then break end
  end
  looked_at = looked_at + #due / 2
  if #due == found and found < 2 * most and not has_lines then break end
end
if in_a_row then redis.pcall('set', queue .. ':in_a_row', in_a_row, 'PX', 86400000) end
if #taken > 0 then
  redis.call('set', last_claim, token .. cjson.encode(taken), 'PX', lease)
end
if is_single and #jobs == 1 and not has_lines then
  local wait = math.min((second or PARKED) - now, lease, 3600000)
  return {jobs, is_empty, wait, marks, is_paused, now}
end
-- An entry is left where some jobs are left to others.
local look = has_lines and redis.pcall('zrange', looks, 0, 0, 'WITHSCORES')[2]
if is_paused == 0 and (looked_at >= limit or is_full or look and look - instant <= 0
    or free <= 0
      and #redis.call('zrangebyscore', queue, '-inf', instant, 'LIMIT', 0, 1) > 0) then
  wake_up(wake, 0)
end
local next = redis.call('zrangebyscore', queue, '(' .. string.format('%.17g', instant),
  '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local wait = (looked_at >= limit or is_full) and 0 or next[2] and next[2] - now or 3600000
if may_claim and look then wait = math.min(wait, math.max(look - now, 0)) end
return {jobs, is_empty, math.min(wait, 3600000), marks, is_paused, now}

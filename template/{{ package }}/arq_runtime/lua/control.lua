-- What a call asks for besides its task: limits, of how many jobs run at once or start in
-- a period, and a priority. It is the end of the stored job, which nobody else reads. Goes
-- above the scripts that queue, claim or end jobs.
--
-- A job whose limit is reached is parked: in its limit's line, a sorted set, under its
-- score, which in the queue is PARKED then, beyond all times. So the head of the queue is
-- free work still. `looks` says from when on each line may go on: its first job is put
-- back into the queue then, and claimed or parked again.
--
-- A job with a priority stands years before its time, once it is due: so the head of the
-- queue is what comes first. When it will be due, `looks` says, too.
local queue = KEYS[1]

local function key(kind, name)
  return queue .. ':' .. kind .. ':' .. name
end

local function number(reply)  -- what others have left there is of another type
  return type(reply) == 'number' and reply or 0
end

-- The limits of a stored job: each a table of name, how many, and in how many ms (0: at
-- once); and the job's priority.
local function limits_of(payload)
  if type(payload) ~= 'string' or string.sub(payload, -2) ~= ']}' then return {priority = 0} end
  local text = string.match(string.sub(payload, -4096), '.*,"l":(%[.*%])}$')
  local is_json, control = pcall(cjson.decode, text or '')
  local limits = {priority = 0}
  if is_json and type(control) == 'table' and type(control[1]) == 'table' then
    local priority = math.floor(tonumber(control[2]) or 0)
    if priority > 0 and priority <= MOST_PRIORITY then limits.priority = priority end
    for _, limit in ipairs(control[1]) do
      if #limits < MOST_LIMITS and type(limit) == 'table' and type(limit[1]) == 'string'
          and (tonumber(limit[2]) or 0) >= 1 and (tonumber(limit[3]) or -1) >= 0 then
        limits[#limits + 1] = {limit[1], tonumber(limit[2]), tonumber(limit[3])}
      end
    end
  end
  return limits
end

-- Puts a job into the queue: of those that are due, the one with the highest priority comes
-- first.
local function line_up(id, at, limits)
  if limits.priority > 0 and at > instant + 1 then
    redis.pcall('zadd', queue .. ':looks', at, '\0' .. id)
  elseif limits.priority > 0 then
    at = at - limits.priority * STEP
  end
  redis.call('zadd', queue, at, id)
end

-- When a limit has room: nil if it has, and for how many; else when to look again.
local function full_until(name, most, per)
  local taken = key(per == 0 and 'places' or 'starts', name)
  redis.pcall('zremrangebyscore', taken, '-inf', per == 0 and now or instant - per)
  local count = number(redis.pcall('zcard', taken))
  if count < most then return nil, most - count end
  local first = redis.pcall('zrange', taken, count - most, count - most, 'WITHSCORES')
  return first[2] and first[2] + per
end

-- Takes a place of each limit until the lease's end; again, where it has them.
local function hold(limits, id, lease, keep)
  for _, limit in ipairs(limits) do
    if limit[3] == 0 then
      local places = key('places', limit[1])
      redis.pcall('zadd', places, now + lease, id)
      redis.pcall('pexpire', places, keep)
    end
  end
end

local function start(limits, id, token)
  for _, limit in ipairs(limits) do
    if limit[3] > 0 then
      local starts = key('starts', limit[1])
      redis.pcall('zadd', starts, instant, token .. id)
      redis.pcall('pexpire', starts, math.ceil(limit[3]))
    end
  end
end

-- Gives back a job's places, and with a token its starts, which were none. How many
-- lines go on?
local function leave(limits, id, token)
  local lines = 0
  for _, limit in ipairs(limits) do
    redis.pcall('zrem', key('line', limit[1]), id)
    if limit[3] == 0 then
      redis.pcall('zrem', key('places', limit[1]), id)
    elseif token then
      redis.pcall('zrem', key('starts', limit[1]), token .. id)
    end
    if limit[3] == 0 or token then
      lines = lines + number(redis.pcall('zadd', queue .. ':looks',
        'XX', 'CH', now, limit[1]))
    end
  end
  return lines
end

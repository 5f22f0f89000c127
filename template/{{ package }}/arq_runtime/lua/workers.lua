-- The workers of a queue, and what they run. A worker says each few seconds which jobs
-- it runs; those that it has begun since then have the end of a new lease as their
-- score. Workers of arq's own say nothing, and leave the score alone: what they run is
-- the oldest of what is due.
--
-- KEYS: queue, failed set, workers
-- ARGV: what a worker's key begins with; how many jobs to look at, at most
local queue, workers, worker = KEYS[1], KEYS[3], ARGV[1]
local most = tonumber(ARGV[2])
local exact_now = string.format('%.17g', instant)
local records, said, leases = {}, {}, {[60000] = now - 5000}
local seen = redis.call('zrevrange', workers, 0, 999, 'WITHSCORES')
for i = 1, #seen, 2 do
  local record, at = redis.call('get', worker .. seen[i]), tonumber(seen[i + 1])
  if record then
    records[#records + 1] = {record, seen[i + 1]}
    local about = cjson.decode(record)
    said[#said + 1] = about
    local lease = about.lease * 1000
    leases[lease] = math.min(leases[lease] or now, math.max(at, now - 30000))
  end
end

-- The running jobs, each as id, worker and when it began; the last two are not known of
-- all. Then whether there may be more.
local function running_jobs()
  local found, known, looked_at = {}, {}, 0
  local function add(id, host, began)
    looked_at = looked_at + 1
    if known[id] or redis.call('exists', in_progress .. id) == 0
        or not redis.call('zscore', queue, id) then
      return known[id]
    end
    known[id] = true
    found[#found + 1] = {id, host or '', began or ''}
    return true
  end
  for _, about in ipairs(said) do
    for i, id in ipairs(about.running) do
      local host, began = about.host .. ':' .. about.pid, (about.began or {})[i]
      began = began and string.format('%.0f', began)
      if not add(id, host, began) and string.find(id, '\\x', 1, true) then
        add(string.gsub(id, '\\x([89a-f][0-9a-f])', function(hex)
          return string.char(tonumber(hex, 16))
        end), host, began)
      end
    end
  end
  for lease, since in pairs(leases) do
    for _, id in ipairs(redis.call('zrevrangebyscore', queue, now + lease,
        since + lease - 1000, 'LIMIT', 0, most)) do
      add(id)
    end
  end
  for _, id in ipairs(redis.call('zrangebyscore', queue, '-inf', exact_now,
      'LIMIT', 0, 100)) do
    add(id)
  end
  return found
end

-- What stats.lua and list.lua begin with: where to look for running jobs. Such a job's
-- score in the queue is its lease's end, so it is among the jobs due within one lease;
-- how long that is, the workers say. Workers of arq's own leave the score alone: their
-- running jobs are the oldest of those that are due.
--
-- KEYS: queue, workers, failed set
-- ARGV: what a worker's key begins with; how many jobs to look at, at most
local queue, workers, failed = unpack(KEYS, 1, 3)
local worker, most = unpack(ARGV, 1, 2)
local exact_now = string.format('%.17g', instant)
local records, lease = {}, 60000
for _, id in ipairs(redis.call('zrevrange', workers, 0, 999)) do
  local record = redis.call('get', worker .. id)
  if record then
    records[#records + 1] = record
    lease = math.max(lease, cjson.decode(record).lease * 1000)
  end
end

local function is_running(id)
  return redis.call('exists', in_progress .. id) == 1
end

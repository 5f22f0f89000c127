-- KEYS: queue
-- ARGV: job id
-- Reply: result, job, is it running, score, progress, now in ms
local id = ARGV[1]
return {redis.call('get', result .. id), redis.call('get', job .. id),
  redis.call('exists', in_progress .. id), redis.call('zscore', KEYS[1], id),
  redis.call('get', progress .. id), now}

-- Renews the leases of jobs.
--
-- KEYS: queue
-- ARGV: lease, in ms; how long jobs are kept, in ms; for each job its id, token and try
-- Reply: for each job whose it is: 0 another worker's, 1 renewed, 2 no longer known
local queue, lease, keep = KEYS[1], unpack(ARGV, 1, 2)
local renewed = {}
for i = 3, #ARGV, 3 do
  local id, token, try = unpack(ARGV, i, i + 2)
  local owner = whose(id, token, try)
  renewed[#renewed + 1] = owner
  if owner == MINE then
    redis.call('pexpire', job .. id, keep)
    redis.call('pexpire', retry .. id, keep)
    redis.call('set', in_progress .. id, token, 'PX', lease)
    redis.call('zadd', queue, 'XX', now + lease, id)
  end
end
return renewed

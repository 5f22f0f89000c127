-- Renews the leases of jobs. Goes below control.lua and lease.lua.
--
-- KEYS: queue
-- ARGV: lease, in ms; how long jobs are kept, in ms; for each job its id, token, try
--       and end, with its limits
-- Reply: for each job whose it is: 0 another worker's, 1 renewed, 2 no longer known
local lease, keep = unpack(ARGV, 1, 2)
local renewed = {}
for i = 3, #ARGV, 4 do
  local id, token, try, control = unpack(ARGV, i, i + 3)
  local owner = whose(id, token, try)
  renewed[#renewed + 1] = owner
  if owner == MINE then
    redis.call('pexpire', job .. id, keep)
    redis.call('pexpire', retry .. id, keep)
    redis.call('set', in_progress .. id, token, 'PX', lease)
    redis.call('zadd', queue, 'XX', now + lease, id)
    hold(limits_of(control), id, lease, keep)
  end
end
return renewed

-- Whose a job is: the worker's while its token is there; or when nobody's is, and nobody
-- has begun another try: then the lease has run out, because Redis was away, say.
-- Nobody's at all, and nothing is known of it: Redis has lost its data.
local LOST, MINE, GONE = 0, 1, 2
local function whose(id, token, try)
  local holder = redis.pcall('get', in_progress .. id)
  if type(holder) == 'string' then return holder == token and MINE or LOST end
  local begun = redis.pcall('get', retry .. id)
  if begun == try then return MINE end
  local trace = redis.call('exists', job .. id, result .. id, failed_job .. id)
  return not begun and trace == 0 and GONE or LOST
end

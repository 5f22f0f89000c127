-- Whose a job is: the worker's while its token is there; or when nobody's is, and nobody
-- has begun another try: then the lease has run out, because Redis was away, say.
-- Nobody's, not ended, and not even the worker's try is known: Redis has lost data.
local LOST, MINE, GONE = 0, 1, 2

-- Has the try's end been recorded? Redis may take a renewal up after that, which was sent
-- before over another connection.
local function has_been_tried(id, try)
  local last = redis.pcall('lindex', errors .. id, -1)
  local is_json, failure = pcall(cjson.decode, type(last) == 'string' and last or '{}')
  return is_json and type(failure) == 'table' and tonumber(failure.try) == tonumber(try)
end

local function whose(id, token, try)
  local holder = redis.pcall('get', in_progress .. id)
  if type(holder) == 'string' then return holder == token and MINE or LOST end
  local begun = redis.pcall('get', retry .. id)
  if begun == try then return has_been_tried(id, try) and LOST or MINE end
  begun = type(begun) == 'string' and tonumber(begun) or 0
  local has_ended = redis.call('exists', result .. id, failed_job .. id) > 0
  return begun < tonumber(try) and not has_ended and GONE or LOST
end

-- The running jobs of a queue. Goes below workers.lua.
--
-- KEYS: queue, failed set, workers
-- ARGV: as workers.lua
-- Reply: for each its id, its worker and when it began, in ms since 1970; the last two
--        may be ""
return running_jobs()

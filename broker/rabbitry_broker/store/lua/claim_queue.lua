-- The queue of a class of resources is for the work of one job at a time; others that are there meanwhile take their own.
-- ARGV: hash of queues and the jobs that have them, sorted set of the jobs that are there, queue, job.
-- Returns 1 if the queue is the job's, 0 if the job is to use its own.
local claims, jobs, queue, job = unpack(ARGV)
local holder = redis.call('HGET', claims, queue)
if holder == job then return 1 end
if not redis.call('ZSCORE', jobs, job) then return 0 end
if holder and redis.call('ZSCORE', jobs, holder) then return 0 end
redis.call('HSET', claims, queue, job)
return 1

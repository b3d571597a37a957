-- GCRA (generic cell rate algorithm): one number a bucket, the time at which it would be full again.
-- KEYS[1] bucket; ARGV[1] microseconds between two requests; ARGV[2] burst.
-- Answers {allowed, remaining, microseconds to wait, microseconds until full}.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = tonumber(ARGV[1])
local burst = interval * tonumber(ARGV[2])
local full_at = tonumber(redis.call('GET', KEYS[1]) or now)
-- A clock that was set back must not lock anyone out for longer than a whole burst.
full_at = math.max(now, math.min(full_at, now + burst))
local next_full_at = full_at + interval
local wait = next_full_at - burst - now
if wait > 0 then
  return {0, 0, wait, full_at - now}
end
redis.call('SET', KEYS[1], string.format('%.0f', next_full_at), 'PX', math.ceil((next_full_at - now) / 1000))
return {1, math.floor(-wait / interval), 0, next_full_at - now}

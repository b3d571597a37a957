-- GCRA (generic cell rate algorithm) over several buckets at once: one number a bucket, the time at which it
-- would be full again. A request passes when all of its buckets let it, and only then is counted in any.
-- KEYS: buckets; ARGV: for each, microseconds between two requests, and burst.
-- Answers {allowed, which bucket decided (from 1), its remaining, microseconds to wait, microseconds until full}.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local next_full_at = {}
local tightest, least_left, longest = 1, nil, 0
for i, key in ipairs(KEYS) do
  local interval = tonumber(ARGV[2 * i - 1])
  local burst = interval * tonumber(ARGV[2 * i])
  local full_at = tonumber(redis.call('GET', key) or now)
  -- A clock that was set back must not lock anyone out for longer than a whole burst.
  full_at = math.max(now, math.min(full_at, now + burst))
  next_full_at[i] = full_at + interval
  local wait = next_full_at[i] - burst - now
  if wait > longest then
    tightest, longest = i, wait
  end
  local left = math.floor(-wait / interval)
  if longest == 0 and (least_left == nil or left < least_left) then
    tightest, least_left = i, left
  end
end
if longest > 0 then
  local interval = tonumber(ARGV[2 * tightest - 1])
  return {0, tightest, 0, longest, next_full_at[tightest] - interval - now}
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, string.format('%.0f', next_full_at[i]), 'PX', math.ceil((next_full_at[i] - now) / 1000))
end
return {1, tightest, least_left, 0, next_full_at[tightest] - now}

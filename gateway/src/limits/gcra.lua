-- GCRA (generic cell rate algorithm): one number a bucket, the time at which it would be full again. A request
-- counts in several buckets at once; it passes when all of them let it, and only then is counted in any. Several
-- requests may be decided in one call, one after the other.
-- KEYS: the buckets of all requests; ARGV: for each request how many buckets it has, and for each of those the
-- microseconds between two requests, and the burst.
-- Answers for each request: allowed, which bucket decided (from 1), its remaining, microseconds to wait,
-- microseconds until full.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function decide(first_key, count, first_arg)
  local next_full_at = {}
  local tightest, least_left, longest = 1, nil, 0
  for i = 1, count do
    local interval = tonumber(ARGV[first_arg + 2 * i - 2])
    local burst = interval * tonumber(ARGV[first_arg + 2 * i - 1])
    local full_at = tonumber(redis.call('GET', KEYS[first_key + i - 1]) or now)
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
    local interval = tonumber(ARGV[first_arg + 2 * tightest - 2])
    return 0, tightest, 0, longest, next_full_at[tightest] - interval - now
  end
  for i = 1, count do
    local until_full = next_full_at[i] - now
    redis.call('SET', KEYS[first_key + i - 1], string.format('%.0f', next_full_at[i]), 'PX', math.ceil(until_full / 1000))
  end
  return 1, tightest, least_left, 0, next_full_at[tightest] - now
end

local answers = {}
local key, arg = 1, 1
while key <= #KEYS do
  local count = tonumber(ARGV[arg])
  local allowed, which, left, wait, full = decide(key, count, arg + 1)
  local at = #answers
  answers[at + 1], answers[at + 2], answers[at + 3], answers[at + 4], answers[at + 5] = allowed, which, left, wait, full
  key, arg = key + count, arg + 1 + 2 * count
end
return answers

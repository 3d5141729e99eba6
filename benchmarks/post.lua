-- wrk: POST one image as multipart/form-data, and print the results as one line of JSON.
--
-- The rate is measured from the first good answer to the last one. wrk's own rate, answers divided by duration, is too
-- low by the answer that the end of the run cuts off: several per cent with a few answers per second.
local ffi = require("ffi")
ffi.cdef "typedef struct { long s; long ns; } moment; int clock_gettime(int clock, moment *now);"
local now = ffi.new("moment")

local file = assert(io.open(os.getenv("BENCH_IMAGE"), "rb"))
local image = file:read("*a")
file:close()

wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=bench"
wrk.body = '--bench\r\nContent-Disposition: form-data; name="image"; filename="slice.png"\r\n' ..
    "Content-Type: image/png\r\n\r\n" .. image .. "\r\n--bench--\r\n"

local only
function setup(thread)
    only = thread -- wrk is started with one thread
end

good, first, last = 0, 0, 0
function response(status)
    if status ~= 200 then
        return
    end
    ffi.C.clock_gettime(1, now) -- monotonic
    last = tonumber(now.s) + tonumber(now.ns) / 1e9
    if good == 0 then
        first = last
    end
    good = good + 1
end

function done(summary, latency, _)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        '{"answers": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "failed": %d}\n',
        only:get("good"), only:get("last") - only:get("first"),
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end

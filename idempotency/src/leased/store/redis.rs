//! Redis: each operation one script, so each is atomic.
//!
//! A token is a number and the server's `run_id`: a server that comes back without its last second of writes may count
//! to the same number again, but not in the same run.

use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{RedisError, Script, ScriptInvocation};

use crate::leased::{Abandoned, Holder, LeasedStore, Retention, Taken, Token, Work};
use crate::store::Claim;
use crate::{Error, ErrorKind, Fingerprint, Key, Recorded, Scope};

/// One slot of a cluster, should there be one: a script's keys must be together.
const KEY: &[u8] = b"mainstay:{lease}:key:";
const TOKEN: &str = "mainstay:{lease}:token";
const ABANDONED: &[u8] = b"mainstay:{lease}:abandoned:";

/// A week, as the inbox.
const ENDED: Duration = Duration::from_hours(7 * 24);
/// A month, in which somebody should have looked.
const UNFINISHED: Duration = Duration::from_hours(30 * 24);

/// Leases in one Redis server, version 7 or later.
///
/// **Once while Redis remembers.** A claim is as durable as the server's persistence: with `appendfsync everysec`, the
/// default, a power cut forgets the last second; without an append-only file a restart forgets everything; a failover
/// forgets what was not replicated; eviction forgets what it likes (set `maxmemory-policy noeviction`). A forgotten key
/// runs again. Send derived keys downstream, or keep leases in a database if that must not happen. Not for clusters or
/// several masters.
#[derive(Clone)]
pub struct RedisStore {
    redis: ConnectionManager,
    retention: Retention,
}

impl RedisStore {
    /// Keys are forgotten a week after their last change; those whose work stopped in the middle, or is unknown, after 30 days.
    pub fn new(redis: ConnectionManager) -> Self {
        Self {
            redis,
            retention: Retention {
                ended: ENDED,
                unfinished: UNFINISHED,
            },
        }
    }

    /// How long a key is remembered after its last change. Redis forgets by itself: no [`Reaper`](crate::Reaper) is needed.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    async fn run<T: redis::FromRedisValue>(
        &self,
        invocation: &ScriptInvocation<'_>,
    ) -> Result<T, Error> {
        let mut redis = self.redis.clone();
        invocation.invoke_async(&mut redis).await.map_err(error)
    }

    /// A conditional write by the key's holder; `then` sees `now`, `key` and the arguments from the sixth on.
    async fn write(
        &self,
        script: &str,
        holder: &Holder,
        arguments: &[&[u8]],
    ) -> Result<bool, Error> {
        let script = Script::new(script);
        let mut call = script.key(name(&holder.scope, &holder.key));
        call.arg(holder.token.number)
            .arg(&*holder.token.run)
            .arg(ABANDONED)
            .arg(millis(self.retention.ended))
            .arg(millis(self.retention.unfinished));
        for argument in arguments {
            call.arg(*argument);
        }
        let written: i64 = self.run(&call).await?;
        Ok(written == 1)
    }
}

const CLAIM: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local key, fingerprint = KEYS[1], ARGV[1]
local found = redis.call('HMGET', key, 'state', 'fingerprint', 'until', 'status', 'headers', 'body')
local free = not found[1] or found[1] == '3'
local over = found[1] == '0' and tonumber(found[3]) <= now
    and (found[2] == fingerprint or (string.byte(found[2]) ~= string.byte(fingerprint)
        and string.sub(found[2], 2, 9) == string.sub(fingerprint, 2, 9)))
if not free and not over then
    local left = math.max(0, tonumber(found[3]) - now)
    return {'', found[1], found[2], left, found[4] or '', found[5] or '', found[6] or ''}
end
local number = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, now)
redis.call('SET', KEYS[2], string.format('%.0f', number))
if free then
    redis.call('DEL', key)
    redis.call('HSET', key, 'fingerprint', fingerprint, 'handler', ARGV[2], 'input', ARGV[3], 'journal', '')
end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
redis.call('HSET', key, 'state', '0', 'token', string.format('%.0f', number), 'run', run, 'until', string.format('%.0f', now + ARGV[4]))
local work = redis.call('HMGET', key, 'handler', 'journal')
local keep = math.max(tonumber(ARGV[5]), tonumber(ARGV[4]))
if work[1] ~= '' or work[2] ~= '' then keep = math.max(keep, tonumber(ARGV[7])) end
redis.call('PEXPIRE', key, string.format('%.0f', keep))
if work[1] ~= '' then redis.call('ZADD', ARGV[6] .. work[1], now + ARGV[4], key) end
return {string.format('%.0f', number), run, work[2], 0, '', '', ''}
";

/// Of every script by a holder: nothing happens unless its token is the key's.
macro_rules! held {
    ($then:literal) => {
        concat!(
            r"
local key = KEYS[1]
local found = redis.call('HMGET', key, 'state', 'token', 'run', 'handler')
if found[1] ~= '0' or found[2] ~= ARGV[1] or found[3] ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keep = tonumber(ARGV[4])
local function wait_until(at)
    keep = math.max(keep, at - now)
    redis.call('HSET', key, 'until', string.format('%.0f', at))
    if found[4] ~= '' then redis.call('ZADD', ARGV[3] .. found[4], at, key) end
end
local function leave(state)
    redis.call('HSET', key, 'state', state)
    redis.call('ZREM', ARGV[3] .. found[4], key)
end
",
            $then,
            r"
local state = redis.call('HGET', key, 'state')
if state == '2' or (state == '0' and (found[4] ~= '' or redis.call('HSTRLEN', key, 'journal') > 0)) then
    keep = math.max(keep, tonumber(ARGV[5]))
end
redis.call('PEXPIRE', key, string.format('%.0f', keep))
return 1
"
        )
    };
}

const RENEW: &str = held!("wait_until(now + ARGV[6])");
const APPEND: &str = held!(
    "redis.call('HSET', key, 'journal', redis.call('HGET', key, 'journal') .. ARGV[6]); wait_until(now + ARGV[7])"
);
const COMPLETE: &str = held!(
    "leave('1'); redis.call('HSET', key, 'status', ARGV[6], 'headers', ARGV[7], 'body', ARGV[8], 'journal', '', 'input', '')"
);
const RELEASE: &str = held!(
    "if redis.call('HGET', key, 'journal') == '' then leave('3'); redis.call('HSET', key, 'input', '') else wait_until(now) end"
);
const LOSE: &str = held!("leave('2')");

const REOPEN: &str = r"
local found = redis.call('HMGET', KEYS[1], 'state', 'handler')
if found[1] ~= '2' then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'state', '0', 'until', string.format('%.0f', now))
if found[2] ~= '' then redis.call('ZADD', ARGV[1] .. found[2], now, KEYS[1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
";

const FIND_ABANDONED: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
    local work = redis.call('HMGET', key, 'fingerprint', 'input')
    if work[1] then
        table.insert(found, key)
        table.insert(found, work[1])
        table.insert(found, work[2])
    else
        redis.call('ZREM', KEYS[1], key)
    end
end
return found
";

impl LeasedStore for RedisStore {
    async fn migrate(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn claim(&self, claim: &Claim, work: &Work, lease: Duration) -> Result<Taken, Error> {
        let script = Script::new(CLAIM);
        let mut call = script.key(name(&claim.scope, &claim.key));
        call.key(TOKEN)
            .arg(claim.fingerprint.as_bytes())
            .arg(&*work.handler)
            .arg(&work.input[..])
            .arg(millis(lease))
            .arg(millis(self.retention.ended))
            .arg(ABANDONED)
            .arg(millis(self.retention.unfinished));
        type Answer = (Vec<u8>, Vec<u8>, Vec<u8>, u64, Vec<u8>, Vec<u8>, Vec<u8>);
        let (number, second, third, left_ms, status, headers, body): Answer =
            self.run(&call).await?;
        if !number.is_empty() {
            return Ok(Taken::Ours {
                token: Token {
                    number: decimal(&number)?,
                    run: String::from_utf8(second)
                        .map_err(|error| Error::new(ErrorKind::Corrupt, error))?
                        .into(),
                },
                journal: third,
            });
        }
        let fingerprint = Fingerprint::from_bytes(&third).ok_or(ErrorKind::Corrupt)?;
        Ok(match &second[..] {
            b"1" => Taken::Done {
                fingerprint,
                recorded: Recorded::decode(decimal(&status)?.cast_signed(), &headers, body)
                    .map_err(|reason| Error::new(ErrorKind::Corrupt, reason))?,
            },
            b"2" => Taken::Unknown { fingerprint },
            _ => Taken::InFlight {
                fingerprint,
                left: Duration::from_millis(left_ms),
            },
        })
    }

    async fn now_ms(&self) -> Result<u64, Error> {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME")
            .query_async(&mut self.redis.clone())
            .await
            .map_err(error)?;
        Ok(seconds * 1000 + micros / 1000)
    }

    async fn exists(&self, scope: &Scope, key: &Key) -> Result<bool, Error> {
        let state: Option<Vec<u8>> = redis::cmd("HGET")
            .arg(name(scope, key))
            .arg("state")
            .query_async(&mut self.redis.clone())
            .await
            .map_err(error)?;
        Ok(state.is_some_and(|state| state != b"3"))
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<bool, Error> {
        let lease = millis(lease).to_string();
        self.write(RENEW, holder, &[lease.as_bytes()]).await
    }

    async fn append(&self, holder: &Holder, entry: &[u8], lease: Duration) -> Result<bool, Error> {
        let lease = millis(lease).to_string();
        self.write(APPEND, holder, &[entry, lease.as_bytes()]).await
    }

    async fn complete(&self, holder: &Holder, recorded: &Recorded) -> Result<bool, Error> {
        let headers = recorded
            .encode_headers()
            .map_err(|reason| Error::new(ErrorKind::Database, reason))?;
        let status = recorded.status.to_string();
        let arguments = [status.as_bytes(), &headers, &recorded.body];
        self.write(COMPLETE, holder, &arguments).await
    }

    async fn release(&self, holder: &Holder) -> Result<bool, Error> {
        self.write(RELEASE, holder, &[]).await
    }

    async fn lose(&self, holder: &Holder) -> Result<bool, Error> {
        self.write(LOSE, holder, &[]).await
    }

    async fn reopen(&self, scope: &Scope, key: &Key) -> Result<bool, Error> {
        let script = Script::new(REOPEN);
        let mut call = script.key(name(scope, key));
        call.arg(ABANDONED)
            .arg(millis(self.retention.unfinished.max(self.retention.ended)));
        let reopened: i64 = self.run(&call).await?;
        Ok(reopened == 1)
    }

    async fn abandoned(&self, handler: &str, max: u32) -> Result<Vec<Abandoned>, Error> {
        if handler.is_empty() {
            return Ok(Vec::new());
        }
        let script = Script::new(FIND_ABANDONED);
        let mut call = script.key([ABANDONED, handler.as_bytes()].concat());
        call.arg(max);
        let found: Vec<Vec<u8>> = self.run(&call).await?;
        let (found, _) = found.as_chunks::<3>();
        found
            .iter()
            .map(|[name, fingerprint, input]| {
                let (scope, key) = name.strip_prefix(KEY)?.split_at_checked(32)?;
                Some(Abandoned {
                    claim: Claim {
                        scope: Scope::from_bytes(scope)?,
                        key: Key::new(key).ok()?,
                        fingerprint: Fingerprint::from_bytes(fingerprint)?,
                    },
                    work: Work {
                        handler: handler.to_owned(),
                        input: input.clone().into(),
                    },
                })
            })
            .map(|found| found.ok_or_else(|| ErrorKind::Corrupt.into()))
            .collect()
    }

    /// Redis forgets by itself: see [`RedisStore::retention`].
    async fn reap(&self, _retention: Retention, _batch_max: u32) -> Result<u64, Error> {
        Ok(0)
    }
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore")
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

fn name(scope: &Scope, key: &Key) -> Vec<u8> {
    [KEY, scope.as_bytes(), key.as_bytes()].concat()
}

/// At most a hundred years, at least one: a script adds it to a time, and an expiry of 0 deletes.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .clamp(1, 100 * 365 * 86_400_000)
}

fn decimal(bytes: &[u8]) -> Result<u64, Error> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ErrorKind::Corrupt.into())
}

fn error(error: RedisError) -> Error {
    // LOADING, READONLY, MASTERDOWN and the like say that another server, or this one later, may do it.
    let passing = error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || matches!(
            error.code(),
            Some("LOADING" | "READONLY" | "MASTERDOWN" | "BUSY" | "TRYAGAIN" | "OOM")
        );
    let kind = if passing {
        ErrorKind::Unavailable
    } else {
        ErrorKind::Database
    };
    Error::new(kind, error)
}

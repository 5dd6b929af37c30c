-- The claim in one call. VOLATILE, so each statement in it has a snapshot of its own: the record is looked for after the locks
-- are held, and one that committed in between is seen. MS001: another transaction holds the key. MS002: it has a record.
create or replace function mainstay_claim(request_lock bigint, key_lock bigint, of_scope bytea, of_key bytea, idle_ms text)
returns void language plpgsql volatile as $$
declare
    held boolean := false;
    lock_timeout_before text;
begin
    perform set_config('idle_in_transaction_session_timeout', idle_ms, true),
            set_config('mainstay.claim', key_lock::text, true);
    if pg_try_advisory_xact_lock_shared(request_lock) then
        held := pg_try_advisory_xact_lock(key_lock);
    end if;
    if not held then
        -- Whoever looks whether the key is held has its lock for the length of a statement: that is waited for. A
        -- transaction that works on the key is not.
        lock_timeout_before := current_setting('lock_timeout');
        perform set_config('lock_timeout', '20', true);
        begin
            perform pg_advisory_xact_lock_shared(request_lock);
            perform pg_advisory_xact_lock(key_lock);
        exception when lock_not_available or deadlock_detected then
            raise exception 'mainstay: the key is in flight' using errcode = 'MS001';
        end;
        perform set_config('lock_timeout', lock_timeout_before, true);
    end if;
    perform from mainstay_key where scope = of_scope and key = of_key;
    if found then
        raise exception 'mainstay: the key has a record' using errcode = 'MS002';
    end if;
end
$$;

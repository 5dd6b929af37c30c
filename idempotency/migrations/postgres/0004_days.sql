-- A key that carries its own time (UUID version 7) always has its record in the same one of sixteen tables: that of its day,
-- counted from 1970, modulo 16. A day that is old enough goes whole, by TRUNCATE; there is none to be created ahead and
-- none that could be missing. Keys without a time stay in mainstay_key.
--
-- They inherit from mainstay_key, so that it still shows every record, and so that the role has no other rights on them. Nothing is
-- rewritten: this takes SHARE UPDATE EXCLUSIVE on mainstay_key, for which neither claims nor records wait.
--
-- That mainstay_key shows every record has a price. A process of the version before reaps by `delete from mainstay_key where
-- ctid = ..`, which now reaches all of the tables, and a ctid is a row's number in its own table only: it would delete young rows
-- of other days. So the rows of a day go by TRUNCATE, and by whoever says first that it means them:
--   begin; set local mainstay.reap = 'on'; delete from mainstay_key where ..; commit;
-- Other deletions pass them over, and are told so once.
create function mainstay_keep()
returns trigger language plpgsql volatile as $$
begin
    if current_setting('mainstay.reap', true) = 'on' then
        return old;
    end if;
    if current_setting('mainstay.reap', true) is distinct from 'told' then
        perform set_config('mainstay.reap', 'told', true);
        raise notice 'mainstay: rows of a day are kept unless mainstay.reap is on in the transaction';
    end if;
    return null;
end
$$;

do $$
declare
    day text;
    granted record;
begin
    for number in 0..15 loop
        day := 'mainstay_key_day_' || lpad(number::text, 2, '0');
        execute format('create table %I (primary key (scope, key)) inherits (mainstay_key)', day);
        execute format('create index %I on %I using brin (created_at) with (autosummarize = on)', day || '_created_at', day);
        execute format('create trigger mainstay_keep before delete on %I for each row execute function mainstay_keep()', day);
        for granted in
            select case acl.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(acl.grantee)) end as role, acl.privilege_type as privilege
            from pg_class, aclexplode(relacl) acl where pg_class.oid = 'mainstay_key'::regclass
        loop
            execute format('grant %s on %I to %s', granted.privilege, day, granted.role);
        end loop;
    end loop;
end
$$;

-- As the function of the same name without a day, which serves processes of the version before: those find every record by way
-- of the inheritance. Here each day has a statement of its own, whose plan is kept.
create function mainstay_claim(request_lock bigint, key_lock bigint, of_scope bytea, of_key bytea, of_day int, idle_ms text)
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
    case of_day
        when 0 then perform from mainstay_key_day_00 where scope = of_scope and key = of_key;
        when 1 then perform from mainstay_key_day_01 where scope = of_scope and key = of_key;
        when 2 then perform from mainstay_key_day_02 where scope = of_scope and key = of_key;
        when 3 then perform from mainstay_key_day_03 where scope = of_scope and key = of_key;
        when 4 then perform from mainstay_key_day_04 where scope = of_scope and key = of_key;
        when 5 then perform from mainstay_key_day_05 where scope = of_scope and key = of_key;
        when 6 then perform from mainstay_key_day_06 where scope = of_scope and key = of_key;
        when 7 then perform from mainstay_key_day_07 where scope = of_scope and key = of_key;
        when 8 then perform from mainstay_key_day_08 where scope = of_scope and key = of_key;
        when 9 then perform from mainstay_key_day_09 where scope = of_scope and key = of_key;
        when 10 then perform from mainstay_key_day_10 where scope = of_scope and key = of_key;
        when 11 then perform from mainstay_key_day_11 where scope = of_scope and key = of_key;
        when 12 then perform from mainstay_key_day_12 where scope = of_scope and key = of_key;
        when 13 then perform from mainstay_key_day_13 where scope = of_scope and key = of_key;
        when 14 then perform from mainstay_key_day_14 where scope = of_scope and key = of_key;
        when 15 then perform from mainstay_key_day_15 where scope = of_scope and key = of_key;
        else perform where false; -- no day; sets FOUND
    end case;
    -- Also for keys with a day: their record may be older than the days' tables.
    if not found then
        perform from only mainstay_key where scope = of_scope and key = of_key;
    end if;
    if found then
        raise exception 'mainstay: the key has a record' using errcode = 'MS002';
    end if;
end
$$;

-- Empties a day if all of its records are older, and says whether it did. Whoever asks for that day's lock meanwhile waits for 50 ms
-- at most; a transaction that has it for longer, such as a backup, is left alone, and the caller tries again later. The index is
-- asked, not the rows: without records of that age it reads some pages.
create function mainstay_empty_day(of_day int, older_than interval)
returns boolean language plpgsql volatile set lock_timeout = '50ms' set enable_seqscan = off as $$
declare
    day regclass := ('mainstay_key_day_' || lpad(of_day::text, 2, '0'))::regclass;
    young boolean;
begin
    if pg_relation_size(day) = 0 then
        return false;
    end if;
    execute format('select exists (select from %s where created_at >= now() - $1)', day) into young using older_than;
    if young then
        return false;
    end if;
    -- One at a time, or two who have looked would wait for each other.
    execute format('lock table %s in share update exclusive mode nowait', day);
    execute format('lock table %s in access exclusive mode', day);
    -- Once more, by a snapshot that is younger than the lock.
    execute format('select exists (select from %s where created_at >= now() - $1)', day) into young using older_than;
    if young then
        return false;
    end if;
    execute format('truncate %s', day);
    return true;
exception
    when lock_not_available or deadlock_detected then
        return false;
    -- A role without the right to TRUNCATE: what is overdue is deleted row by row.
    when insufficient_privilege then
        return false;
end
$$;

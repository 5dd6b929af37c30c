-- Whether mainstay_key itself, without the days' tables, has a record. VOLATILE, so that it looks with a snapshot of its own: whoever
-- calls it with the key's locks held sees what was committed while they were waited for, which the calling statement does not.
create function mainstay_key_has(of_scope bytea, of_key bytea)
returns boolean language plpgsql volatile as $$
begin
    return exists (select from only mainstay_key where scope = of_scope and key = of_key);
end
$$;

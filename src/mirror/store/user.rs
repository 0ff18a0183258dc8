//! Users' rows.

use std::collections::BTreeSet;

use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::column;
use crate::ids::{AccountSid, UserSid};
use crate::mirror::change::UserFields;
use crate::mirror::erased::Erased;
use crate::mirror::fold::{State, User};
use crate::mirror::version::Version;

pub(super) async fn load_users(
    conn: &mut PgConnection,
    keys: &BTreeSet<(AccountSid, UserSid)>,
    state: &mut State,
) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let (accounts, sids): (Vec<&str>, Vec<&str>) = keys
        .iter()
        .map(|(account, sid)| (account.as_str(), sid.as_str()))
        .unzip();
    let rows = sqlx::query!(
        r#"-- mirror.load_users
        select account_sid as "account_sid: AccountSid", user_sid as "sid: UserSid", service_sid, identity, friendly_name,
               role_sid, attributes, is_online, is_notifiable, created_at, version_at, erased
        from chat_user
        where (account_sid, user_sid) in (select * from unnest($1::text[], $2::text[]))
        order by account_sid, user_sid
        for update"#,
        &accounts as _,
        &sids as _,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let user = User {
            fields: UserFields {
                service_sid: row.service_sid,
                identity: row.identity,
                friendly_name: row.friendly_name,
                role_sid: row.role_sid,
                attributes: row.attributes,
                is_online: row.is_online,
                is_notifiable: row.is_notifiable,
            },
            created_at: row.created_at.map(jiff_sqlx::Timestamp::to_jiff),
            version: Version::exact(row.version_at.to_jiff()),
            erased: Erased::read(row.erased),
            dirty: false,
        };
        state.users.insert((row.account_sid, row.sid), user);
    }
    Ok(())
}

pub(super) async fn save_users(conn: &mut PgConnection, state: &State) -> Result<(), sqlx::Error> {
    let rows: Vec<(&(AccountSid, UserSid), &User)> =
        state.users.iter().filter(|(_, row)| row.dirty).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- mirror.save_users
        insert into chat_user (account_sid, user_sid, service_sid, identity, friendly_name, role_sid, attributes, is_online,
            is_notifiable, created_at, version_at)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::boolean[], $9::boolean[], $10::timestamptz[], $11::timestamptz[])
        on conflict (account_sid, user_sid) do update
        set service_sid = excluded.service_sid, identity = excluded.identity, friendly_name = excluded.friendly_name,
            role_sid = excluded.role_sid, attributes = excluded.attributes, is_online = excluded.is_online,
            is_notifiable = excluded.is_notifiable, created_at = excluded.created_at, version_at = excluded.version_at
        where excluded.version_at >= chat_user.version_at",
        column!(rows, |((account, _), _)| account.as_str()) as _,
        column!(rows, |((_, sid), _)| sid.as_str()) as _,
        column!(rows, |(_, row)| row.fields.service_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.identity.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.friendly_name.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.role_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.attributes.as_deref()) as _,
        column!(rows, |(_, row)| row.fields.is_online) as _,
        column!(rows, |(_, row)| row.fields.is_notifiable) as _,
        column!(rows, |(_, row)| row.created_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        column!(rows, |(_, row)| row.version.at.to_sqlx()) as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

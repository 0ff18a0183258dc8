//! Seats: of one person, and the attributes of those who left.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::person::name_of;
use super::{Keys, count};
use crate::ids::ConversationSid;
use crate::person::Person;

/// Erases the person from the seats of a conversation, and from what was said of them before.
pub(super) async fn erase(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let name = name_of(person);
    // Of a seat that passed on, only the name is the person's.
    let passed_on = sqlx::query!(
        "-- mirror.erase_seats_passed_on
        update participant
        set erased = erasure_marks(erased, $2, jsonb_build_object('identity', $3::text), $4), erased_at = $5
        where conversation_sid = $1 and address is distinct from $3 and identity is distinct from $3
          and exists (select from participant_version as version
                      where version.conversation_sid = $1 and version.participant_sid = participant.participant_sid
                        and (version.address = $3 or version.identity = $3))",
        sid.as_str(),
        &[name] as _,
        person.exact(),
        person.pseudonym(),
        now.to_sqlx() as _,
    )
    .execute(&mut *conn)
    .await?;
    let own = sqlx::query!(
        "-- mirror.erase_seats
        update participant
        set address = case when address = $3 then $4 else address end,
            identity = case when identity = $3 then $4 else identity end,
            attributes = null,
            erased = erasure_marks(erased, $2, jsonb_build_object('attributes', attributes, 'identity', $3::text), $4),
            erased_at = $5
        where conversation_sid = $1 and (address = $3 or identity = $3)",
        sid.as_str(),
        &[name, "attributes"] as _,
        person.exact(),
        person.pseudonym(),
        now.to_sqlx() as _,
    )
    .execute(&mut *conn)
    .await?;
    let naming = sqlx::query!(
        "-- mirror.erase_attributes_naming_person
        update participant
        set attributes = null, erased_at = $3,
            erased = erasure_marks(erased, array['attributes'], jsonb_build_object('attributes', attributes), null)
        where conversation_sid = $1 and attributes like any($2)",
        sid.as_str(),
        &person.patterns() as _,
        now.to_sqlx() as _,
    )
    .execute(&mut *conn)
    .await?;
    let sids = sqlx::query_scalar!(
        "-- mirror.seats_with_versions
        select distinct participant_sid from participant_version where conversation_sid = $1",
        sid.as_str(),
    )
    .fetch_all(&mut *conn)
    .await?;
    let keys: Vec<&str> = sids.iter().map(String::as_str).collect();
    let parents = vec![sid.as_str(); keys.len()];
    let keys = Keys {
        parents: &parents,
        keys: &keys,
    };
    let versions = SeatVersions {
        keys,
        names: &[name, "attributes"],
        person: Some(person),
        before: None,
    };
    versions.erase(conn, now).await?;
    Ok(count(
        passed_on.rows_affected() + own.rows_affected() + naming.rows_affected(),
    ))
}

struct SeatVersions<'a> {
    keys: Keys<'a>,
    names: &'a [&'a str],
    /// Only what names them.
    person: Option<&'a Person>,
    before: Option<Timestamp>,
}

impl SeatVersions<'_> {
    async fn erase(&self, conn: &mut PgConnection, now: Timestamp) -> Result<i64, sqlx::Error> {
        let erased = sqlx::query!(
            "-- mirror.erase_participant_versions
            with old as (
                delete from participant_version using unnest($1::text[], $2::text[]) as due (parent, key)
                where conversation_sid = due.parent and participant_sid = due.key and aspect = 'content'
                  and ($6::timestamptz is null or version_at < $6)
                  and case when $5::text is null then not coalesce(erased, '{}') ? 'attributes'
                      else address = $5 or identity = $5 or attributes like any($8::text[]) end
                returning participant_version.*
            ), masked as (
                select conversation_sid, participant_sid, aspect, version_at, stated_at, learnt_at, proxy_address,
                       projected_address, binding_type, role_sid, last_read_message_index as horizon,
                       case when identity = $5 then $4 else identity end as identity,
                       case when address = $5 then $4 else address end as address,
                       null::text as attributes,
                       erasure_marks(erased, $3, jsonb_build_object('attributes', attributes, 'identity', $5::text), $4)
                           as erased
                from old
            )
            insert into participant_version (conversation_sid, participant_sid, aspect, version_at, stated_at, learnt_at,
                identity, address, proxy_address, projected_address, binding_type, role_sid, attributes,
                last_read_message_index, digest, erased, erased_at)
            select conversation_sid, participant_sid, aspect, version_at, stated_at, learnt_at, identity, address,
                   proxy_address, projected_address, binding_type, role_sid, attributes, horizon,
                   substr(sha256(convert_to(row(identity, address, proxy_address, projected_address, binding_type, role_sid,
                                                attributes, horizon)::text, 'UTF8')), 1, 16),
                   erased, $7
            from masked order by learnt_at
            on conflict do nothing",
            self.keys.parents as _,
            self.keys.keys as _,
            self.names as _,
            self.person.map(Person::pseudonym),
            self.person.map(Person::exact),
            self.before.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
            now.to_sqlx() as _,
            self.person.map(Person::patterns) as _,
        )
        .execute(conn)
        .await?;
        Ok(count(erased.rows_affected()))
    }
}

/// Erases the attributes of members: of all they ever said, or only of versions that were stated before a time.
pub(super) async fn erase_attributes(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    before: Option<Timestamp>,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let mut rows = 0;
    if before.is_none() {
        let erased = sqlx::query!(
            "-- mirror.erase_participants
            update participant
            set attributes = null, erased_at = $3,
                erased = erasure_marks(erased, array['attributes'], jsonb_build_object('attributes', attributes), null)
            from unnest($1::text[], $2::text[]) as due (parent, key)
            where conversation_sid = due.parent and participant_sid = due.key",
            keys.parents as _,
            keys.keys as _,
            now.to_sqlx() as _,
        )
        .execute(&mut *conn)
        .await?;
        rows = count(erased.rows_affected());
    }
    let versions = SeatVersions {
        keys,
        names: &["attributes"],
        person: None,
        before,
    };
    let of_versions = versions.erase(conn, now).await?;
    Ok(if before.is_none() { rows } else { of_versions })
}

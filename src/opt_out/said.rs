//! What a member said of a number of ours, word by word, and what each word changes. The state that comes out is that of
//! their last word, in whatever order the words come, and from whichever of their groups: what was said after a word may have
//! come before it, and is then looked for in the mirror.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::opt_out::keywords::{self, Keyword};
use crate::opt_out::store::{self, New, Pair};
use crate::opt_out::{Source, find::Resolved};

/// So many later words are looked at, the newest of them. What was said last decides.
const LATER_MAX: i64 = 200;

/// A word by which a member opts out or in, or a refusal of Twilio that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) keyword: Keyword,
    pub(super) source: Source,
    pub(super) at: Timestamp,
    /// SID of the message or the receipt.
    pub(super) evidence: String,
    pub(super) conversation_sid: String,
    pub(super) participant_sid: String,
}

impl Word {
    pub(super) fn of(one: &Resolved) -> Self {
        Self {
            keyword: one.seen.keyword,
            source: one.seen.source,
            at: one.seen.at,
            evidence: one.seen.evidence.clone(),
            conversation_sid: one.seen.conversation_sid.to_string(),
            participant_sid: one.participant_sid.clone(),
        }
    }

    /// In which words count. Of two of one instant, the one that stops is taken for the last.
    fn place(&self) -> (Timestamp, bool) {
        (self.at, self.keyword == Keyword::Stop)
    }
}

/// Takes in a word, and then what was said after it. Answers with the words that changed something, and the opt-outs that
/// they began or ended. The pair is locked.
pub(super) async fn take(
    conn: &mut PgConnection,
    pair: &Pair,
    word: Word,
    now: Timestamp,
) -> Result<Vec<(Word, Uuid)>, sqlx::Error> {
    let Some(opt_out_id) = enter(conn, pair, &word, now).await? else {
        return Ok(Vec::new());
    };
    let later = said_after(conn, pair, word.at).await?;
    let mut changed = vec![(word, opt_out_id)];
    for word in later {
        if let Some(opt_out_id) = enter(conn, pair, &word, now).await? {
            changed.push((word, opt_out_id));
        }
    }
    Ok(changed)
}

async fn enter(
    conn: &mut PgConnection,
    pair: &Pair,
    word: &Word,
    now: Timestamp,
) -> Result<Option<Uuid>, sqlx::Error> {
    match word.keyword {
        Keyword::Stop => {
            let new = New {
                pair,
                since: word.at,
                source: word.source,
                evidence: Some(&word.evidence),
                conversation_sid: Some(&word.conversation_sid),
                set_by: None,
            };
            store::insert(conn, &new, now).await
        }
        Keyword::Start => store::end(conn, pair, word.at, &word.evidence).await,
    }
}

/// What the mirror has of what the member said since, in any group of the two, in its order; what was said at that very
/// time too.
async fn said_after(
    conn: &mut PgConnection,
    pair: &Pair,
    since: Timestamp,
) -> Result<Vec<Word>, sqlx::Error> {
    // No less than what `Keyword` takes for one, and little more.
    let words = [keywords::STOP, keywords::START].concat();
    let rows = sqlx::query!(
        r#"-- opt_out.said_after
        with here as (
            select conversation_sid, participant_sid, proxy_address from participant
            where account_sid = $1 and address = $3)
        select said.evidence as "evidence!", said.conversation_sid as "conversation_sid!", said.participant_sid as "participant_sid!",
               said.body, said.at as "at!: jiff_sqlx::Timestamp"
        from (
            select message.message_sid as evidence, here.conversation_sid, here.participant_sid, here.proxy_address, message.body,
                   coalesce(message.created_at, message.version_at) as at
            from here
            join message on message.conversation_sid = here.conversation_sid
                        and (message.participant_sid = here.participant_sid or message.author = $3)
            where message.removed_at is null and lower(btrim(message.body, $6)) = any($7)
            union all
            select receipt.delivery_receipt_sid, here.conversation_sid, here.participant_sid, here.proxy_address, null,
                   least(receipt.created_at, receipt.version_at)
            from here
            join delivery_receipt as receipt on receipt.conversation_sid = here.conversation_sid
                                            and receipt.participant_sid = here.participant_sid
            where receipt.error_code = '21610') as said
        where said.at >= $4
          and (said.proxy_address = $2
               or (said.proxy_address is null
                   and exists (select from participant as ours
                               where ours.conversation_sid = said.conversation_sid and ours.projected_address = $2
                                 and (ours.removed_at is null or ours.removed_at > said.at))))
        order by said.at desc limit $5"#,
        pair.account_sid,
        pair.line,
        pair.address,
        since.to_sqlx() as _,
        LATER_MAX,
        keywords::SPACE,
        &words as _,
    )
    .fetch_all(conn)
    .await?;
    let mut words: Vec<Word> = rows
        .into_iter()
        .filter_map(|row| {
            let (keyword, source) = match &row.body {
                Some(body) => (Keyword::of(body)?, Source::Keyword),
                None => (Keyword::Stop, Source::Receipt),
            };
            Some(Word {
                keyword,
                source,
                at: row.at.to_jiff(),
                evidence: row.evidence,
                conversation_sid: row.conversation_sid,
                participant_sid: row.participant_sid,
            })
        })
        .collect();
    words.sort_by_key(Word::place);
    Ok(words)
}

//! Watching over the changefeed, where TiCDC can be asked about it.
//!
//! One that was removed and created again sends on the same topics, and its watermarks say nothing of
//! what committed before it begins. Whether the feed is whole is known from the two timestamps alone:
//! up to `sent_to` the old one is known to have sent all, above its `start_ts` the new one does. What
//! counts as known is what was so while the old one was still there: rowproof's own fences may be made of
//! the watermarks of the new one by the time it is seen.

use super::link::Links;
use super::migrate::Run;
use super::precheck::Finding;
use crate::broker::TiCdcServer;
use crate::database::{Record, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Changefeed, ChangefeedState, CommitTs, physical_ms};
use crate::fence::BaseState;
use crate::journal::ChangefeedNote;
use crate::report::utc;
use crate::schema::TableName;
use crate::task::FeedTask;
use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

/// How often TiCDC is asked.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How many tables an error names; the status names all.
const NAMED: usize = 5;

/// What watches over the changefeed of a migration.
pub(super) struct ChangefeedWatch<'r> {
    run: &'r Run,
    record: &'r Record,
    server: TiCdcServer,
    /// The changefeed's id.
    id: String,
    /// T0: what committed up to it the load brings.
    base: CommitTs,
    /// What was told last of why nothing comes, or why nothing is known.
    told: Option<String>,
}

impl<'r> ChangefeedWatch<'r> {
    /// Prepares for a task whose load is as of `base`, if its file says where TiCDC is.
    ///
    /// # Errors
    /// If a certificate cannot be read.
    pub(super) fn of(
        run: &'r Run,
        record: &'r Record,
        base: CommitTs,
    ) -> Result<Option<ChangefeedWatch<'r>>> {
        let ticdc = match &run.task.feed {
            Some(feed) => feed.ticdc()?,
            None => None,
        };
        Ok(ticdc.map(|ticdc| ChangefeedWatch {
            run,
            record,
            id: ticdc.changefeed.clone(),
            server: TiCdcServer::new(ticdc),
            base,
            told: None,
        }))
    }

    /// Does the work of the migration, if the feed is whole, and looks meanwhile whether it stays so.
    ///
    /// # Errors
    /// Those of the work, and when the feed may lack changes.
    pub(super) async fn beside(mut self, work: impl Future<Output = Result<()>>) -> Result<()> {
        self.look(true).await?;
        let mut work = pin!(work);
        let error = tokio::select! {
            result = &mut work => return result,
            error = self.keep_looking() => error,
        };
        // What is applied is proven before it ends, as when the operator stops it.
        self.run.stop.cancel();
        if let Err(other) = work.await
            && other.kind() != ErrorKind::Interrupted
        {
            tracing::warn!(error = %other.message(), "stopping met another error");
        }
        Err(error)
    }

    async fn keep_looking(&mut self) -> Error {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Err(error) = self.look(false).await {
                return error;
            }
        }
    }

    /// Asks TiCDC, and shows what keeps the changefeed from sending. That it does not answer stops
    /// nothing: the feed itself is what counts.
    async fn look(&mut self, is_first: bool) -> Result<()> {
        // What had come before the question is not of a changefeed that is created after it. A
        // watermark is one above the timestamp up to which rows and DDL are complete.
        let shown = self.run.status.snapshot().watermark.map_or(0, |of| of + 1);
        let note = match self.server.changefeed().await {
            Ok(Some(found)) => {
                self.judge(&found, is_first).await?;
                self.keyless(&found).await?;
                hindrance(&self.id, &found)
            }
            Ok(None) => {
                let sent_to = match self.run.journal.changefeed().await? {
                    Some(noted) => self.raise(noted, shown).await?,
                    None => self.base,
                };
                Some(missing(&self.id, sent_to))
            }
            Err(error) => Some(format!(
                "an answer about the changefeed {}, to know whether it is still the same: {}",
                self.id,
                error.message()
            )),
        };
        if note != self.told {
            match &note {
                Some(note) => tracing::warn!("waiting for {note}"),
                None => tracing::info!(changefeed = %self.id, "the changefeed is normal"),
            }
            self.told = note.clone();
        }
        self.run.status.update(|status| status.changefeed = note);
        Ok(())
    }

    /// Notes that the changefeed that is noted has sent all up to a timestamp, and returns up to which it
    /// is known to have sent all.
    async fn raise(&self, noted: ChangefeedNote, sent_to: CommitTs) -> Result<CommitTs> {
        if noted.sent_to >= sent_to {
            return Ok(noted.sent_to);
        }
        let note = ChangefeedNote { sent_to, ..noted };
        self.run.journal.set_changefeed(Some(&note)).await?;
        Ok(sent_to)
    }

    /// Tells whether the feed is whole although this changefeed may be another one than before.
    async fn judge(&self, found: &Changefeed, is_first: bool) -> Result<()> {
        let noted = self.run.journal.changefeed().await?;
        if let Some(noted) = noted.filter(|noted| noted.identity == found.identity) {
            return self.raise(noted, found.checkpoint_ts).await.map(|_| ());
        }
        let start_ts = found.identity.start_ts;
        let sent_to = noted.map_or(self.base, |noted| noted.sent_to);
        if start_ts > sent_to {
            let mut links = Links::new(&self.run.task);
            let looked = links
                .retried("looking for tables that may lack changes", async |links| {
                    let target = links.target.session().await?;
                    self.in_doubt(target, start_ts, is_first).await
                })
                .await;
            match looked {
                Ok(Some(names)) => return Err(self.lost(&names, sent_to, start_ts).await?),
                Ok(None) => {}
                // The migration itself meets that too.
                Err(error) if error.kind().is_retryable() && !is_first => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if noted.is_some() {
            tracing::warn!(
                changefeed = %self.id, start_ts, sent_to,
                "the changefeed was created anew, and nothing is lost: it begins before what had been sent, \
                 or every table was read or is loaded again since"
            );
        }
        let note = ChangefeedNote {
            identity: found.identity,
            // From the one to the other nothing is left out, but for what is loaded again.
            sent_to: sent_to.max(start_ts).max(found.checkpoint_ts),
        };
        self.run.journal.set_changefeed(Some(&note)).await
    }

    /// Returns the tables that lack what committed up to `start_ts` and was never sent; none if each was
    /// loaded or read since, or is asked to be loaded anew. Before the load is done, that is all of them.
    async fn in_doubt(
        &self,
        target: &mut Session,
        start_ts: CommitTs,
        is_first: bool,
    ) -> Result<Option<Vec<TableName>>> {
        let journal = &self.run.journal;
        let row = self.record.task(target).await?;
        if !row.is_some_and(|row| row.loaded) {
            return Ok(Some(Vec::new()));
        }
        let mut loading = Vec::new();
        for base in self.record.fresh_bases(target).await? {
            if base.base >= start_ts || base.state == BaseState::Joined {
                continue;
            }
            let name = base.table.name;
            if is_first {
                // Nobody works on it yet: it begins again, with a later base.
                journal.request_bases(std::slice::from_ref(&name)).await?;
                self.record.end_base(target, &name).await?;
            } else {
                loading.push(name);
            }
        }
        let mut settled: BTreeSet<TableName> = journal.read_since(start_ts).await?;
        settled.extend(journal.base_requests().await?);
        let followed = self.record.followed(target).await?.into_iter();
        let lacks = followed.filter(|row| row.stopped.is_none() && row.base < start_ts);
        let mut names: Vec<TableName> = lacks.map(|row| row.name).collect();
        names.retain(|name| !settled.contains(name));
        // A request for one of these is what began it.
        names.append(&mut loading);
        names.retain(|name| self.run.task.scope.contains(name));
        Ok((!names.is_empty()).then_some(names))
    }

    /// Withdraws what is said of these tables, and makes the error that ends the migration.
    async fn lost(
        &self,
        names: &[TableName],
        sent_to: CommitTs,
        start_ts: CommitTs,
    ) -> Result<Error> {
        let gap = format!(
            "TiCDC's changefeed {} was created anew, and begins at {}; before that, all is known to have \
             been sent only up to {}. What committed in between may never have come",
            self.id,
            at(start_ts),
            at(sent_to)
        );
        let journal = &self.run.journal;
        journal.withdraw_lost(names, start_ts, &gap).await?;
        if names.is_empty() {
            let what = format!("{gap}, and the load needs it: nothing can be followed from here");
            return Ok(Error::new(ErrorKind::Feed, what).advise(
                "begin again: a new task, with a name, a state directory and empty topics of its own",
            ));
        }
        let named: Vec<String> = names.iter().take(NAMED).map(ToString::to_string).collect();
        let more = match names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = format!(
            "{gap}: {}{more} may lack changes, and are unproven",
            named.join(", ")
        );
        Ok(Error::new(ErrorKind::Feed, what).advise(
            "`rowproof resync` has these tables loaded anew by the next `rowproof migrate`; creating the \
             changefeed once more, with an earlier start, does not help any more",
        ))
    }

    /// Tables without a key are not carried on while the changefeed does not send them.
    async fn keyless(&self, found: &Changefeed) -> Result<()> {
        if found.force_replicate != Some(false) {
            return Ok(());
        }
        let fence = self.run.status.snapshot().fence;
        let w = fence.map_or(self.base, |fence| fence.w);
        let detail = "it has no key, and TiCDC says that the changefeed has force-replicate = false: its \
                      changes are not sent; check reads the table";
        self.run.journal.withdraw_keyless(w, detail).await
    }
}

/// Says that the changefeed is gone, and from where another one takes over without a gap.
fn missing(id: &str, sent_to: CommitTs) -> String {
    format!(
        "TiCDC's changefeed {id}, which does not exist: create it with --start-ts={sent_to} or an earlier \
         one, and nothing is lost"
    )
}

/// Says what a changefeed waits for that does not send what rowproof reads.
fn hindrance(id: &str, found: &Changefeed) -> Option<String> {
    if found.speaks_another_protocol() {
        let protocol = found.protocol.as_deref().unwrap_or_default();
        return Some(format!(
            "TiCDC's changefeed {id}, which speaks {protocol}: it is to speak open-protocol"
        ));
    }
    let fix = fix(id, found.state)?;
    Some(format!(
        "TiCDC's changefeed {id}, which {}: {fix}",
        state(found)
    ))
}

/// Says what a changefeed does, with the code of its error.
fn state(found: &Changefeed) -> String {
    let code = found.error.as_deref();
    let code = code.map_or_else(String::new, |code| format!(" ({code})"));
    format!("{}{code}", found.state)
}

/// Returns what to do about a changefeed that does not send as it should.
fn fix(id: &str, state: ChangefeedState) -> Option<String> {
    let query = format!("`cdc cli changefeed query -c {id}` shows why");
    match state {
        ChangefeedState::Normal | ChangefeedState::Unknown => None,
        ChangefeedState::Retrying => Some(query),
        ChangefeedState::Stopped => {
            Some(format!("`cdc cli changefeed resume -c {id}` lets it go on"))
        }
        ChangefeedState::Failed => Some(format!(
            "{query}; mend that, and `cdc cli changefeed resume -c {id}`"
        )),
        ChangefeedState::Finished => Some("create one without --target-ts".to_owned()),
        ChangefeedState::Removed => Some("create it again".to_owned()),
    }
}

fn at(ts: CommitTs) -> String {
    let ms = i64::try_from(physical_ms(ts)).unwrap_or(i64::MAX);
    format!("{ts} ({})", utc(ms))
}

/// Looks at the changefeed, for precheck; `keyless` are the tables in scope without a key.
pub(super) async fn look_at_changefeed(feed: &FeedTask, keyless: &[TableName]) -> Vec<Finding> {
    let ticdc = match feed.ticdc() {
        Ok(Some(ticdc)) => ticdc,
        Ok(None) => return vec![not_asked()],
        Err(error) => return vec![Finding::met(&error, "TiCDC is asked about the changefeed")],
    };
    let id = ticdc.changefeed.clone();
    let mut server = TiCdcServer::new(ticdc);
    match server.changefeed().await {
        Ok(Some(found)) => findings(feed, &id, &found, keyless),
        Ok(None) => vec![Finding::error(
            format!(
                "feed: TiCDC has no changefeed {id} in the namespace {}",
                server.task().namespace
            ),
            "without one nothing is sent; what is on the topic may be of another",
            "compare [feed] changefeed and namespace with `cdc cli changefeed list`",
        )],
        Err(error) => {
            let text = error.to_string();
            let fix = text.split_once("what to do: ").map_or("", |(_, fix)| fix);
            vec![Finding::warning(
                format!("feed: {}", error.message()),
                "the feed itself is what counts, but a changefeed that is created anew or paused is not \
                 noticed meanwhile",
                fix,
            )]
        }
    }
}

fn not_asked() -> Finding {
    Finding::note(
        "feed: TiCDC is not asked about the changefeed",
        "no message names its changefeed: one that is removed and created again with a later start loses \
         changes, which only a check of all tables finds",
        "[feed] ticdc = \"http://HOST:8300\" and changefeed = \"ID\"",
    )
}

fn findings(feed: &FeedTask, id: &str, found: &Changefeed, keyless: &[TableName]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = format!("feed: changefeed {id}");
    if let Some(fix) = fix(id, found.state) {
        let what = format!("{name} {}", state(found));
        let why = "changes made during and after the load come through it";
        findings.push(match found.state {
            ChangefeedState::Retrying => Finding::warning(what, why, fix),
            _ => Finding::error(what, why, fix),
        });
    }
    if found
        .topic
        .as_deref()
        .is_some_and(|topic| !feed.reads(topic))
    {
        findings.push(Finding::error(
            format!("{name} writes to a topic that [feed] topics does not name"),
            "it is not the one that is read, or its default topic, with the watermarks, is left out",
            "compare [feed] changefeed and topics with `cdc cli changefeed query`",
        ));
    }
    if found.speaks_another_protocol() {
        let protocol = found.protocol.as_deref().unwrap_or_default();
        findings.push(Finding::error(
            format!("{name} speaks {protocol}"),
            "rowproof reads Open Protocol only",
            "create the changefeed with protocol=open-protocol in its sink URI",
        ));
    }
    if let (Some(false), Some(first)) = (found.force_replicate, keyless.first()) {
        let count = keyless.len();
        findings.push(Finding::error(
            format!("{name} has force-replicate = false ({count} tables have no key, {first} the first)"),
            "TiCDC sends nothing of tables without a key: their changes would be missing on the target",
            "create the changefeed with force-replicate = true, give the tables primary keys, or exclude \
             them under [tables]",
        ));
    }
    if found.old_values == Some(false) {
        findings.push(Finding::note(
            format!("{name} sends no old values"),
            "there are no ledgers, so that `check --ledger` reads both sides",
            "output-old-value = true under [sink.open] in the changefeed's file, if you want them",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(format!(
            "{name} {} and begins at {}",
            state(found),
            at(found.identity.start_ts)
        )));
    }
    findings
}

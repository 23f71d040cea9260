//! Verification: all that two nodes hold is compared, key by key in their order, whatever their version vectors say.
//!
//! A page of keys is summed up on both sides; only where the sums differ is it told key by key. Finds rows that rotted,
//! vanished or were put back to an older state. A write that is still on its way is told apart by its dot: the version
//! vector does not claim it yet.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::digest::RecordHash;
use super::dot::{Dot, NodeId};
use super::entry::{Entry, Marker, Value};
use super::input::{Refusal, Reply, Ticket};
use super::key::Key;
use super::limits::{
    VERIFY_EXAMPLES_MAX, VERIFY_MENDING_MAX, VERIFY_PAGE, VERIFY_REST, VERIFY_REST_MIN, VERIFY_ROWS_MAX, VERIFY_TIMEOUT,
};
use super::message::Message;
use super::repair::{Damage, is_sound};
use super::store::{Store, StoreError};
use super::{Mono, Now, Replica};

/// What a comparison with one peer came to. Counts are of keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verification {
    /// The peer.
    pub peer: NodeId,
    /// Entries here that were compared.
    pub compared: u64,
    /// Held here, but not as it was written.
    pub damaged: u64,
    /// Not held here, though this node claims to.
    pub missing: u64,
    /// Held here in an older state than this node claims to.
    pub stale: u64,
    /// Held by the peer in an older state, or not at all: verify there, too.
    pub behind_at_peer: u64,
    /// Different here and there because they are on their way; nothing is wrong with that.
    pub on_the_way: u64,
    /// Of the damaged, missing and stale ones, those that were mended.
    pub repaired: u64,
    /// Some keys of those that were damaged, missing or stale.
    pub examples: Vec<Key>,
    /// The peer was lost, or fell silent, before the end.
    pub cut_short: bool,
}

/// A page, summed up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// The asking side's number for the verification.
    pub id: u64,
    /// The page begins after this key, or at the first one.
    pub after: Option<Key>,
    /// And ends with this one, or at the last one.
    pub upto: Option<Key>,
    /// Entries in it.
    pub count: u64,
    /// Sum of their hashes.
    pub sum: u128,
}

/// The same page at the other side.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifyAnswer {
    /// As asked.
    pub id: u64,
    /// `None`: the sums agree. Else its entries, in order.
    pub rows: Option<Vec<VerifyRow>>,
    /// Where the rows end, if before the end of the page.
    pub upto: Option<Key>,
}

/// One entry, as far as it takes to compare it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifyRow {
    /// Its key.
    pub key: Key,
    /// Its address.
    pub dot: Dot,
    /// Its place in the order of writes.
    pub marker: Marker,
    /// Over all of it.
    pub hash: RecordHash,
    /// A tombstone, or expired and dropped: if it is missing at the other side, nothing is lost to readers.
    pub is_remnant: bool,
}

/// The verification under way, if one is.
#[derive(Default)]
pub(super) struct Verifier {
    next_id: u64,
    run: Option<Run>,
    /// When this node may begin the next one by itself.
    unasked_due: Mono,
}

struct Run {
    id: u64,
    /// Who wants to hear of it; nobody, if the node began by itself.
    ticket: Option<Ticket>,
    begun: Mono,
    repair: bool,
    report: Verification,
    /// The page that the peer is asked about; `None` once all were.
    page: Option<Page>,
    mending: BTreeSet<Key>,
    progressed: Mono,
}

#[derive(Clone)]
struct Page {
    after: Option<Key>,
    upto: Option<Key>,
}

impl Verifier {
    pub(super) fn next_due(&self) -> Option<Mono> {
        self.run.as_ref().map(|run| run.progressed + VERIFY_TIMEOUT)
    }
}

impl<S: Store> Replica<S> {
    pub(super) fn begin_verification(
        &mut self,
        ticket: Ticket,
        peer: Option<NodeId>,
        repair: bool,
        now: Now,
    ) -> Result<(), StoreError> {
        let mut ready = self.peers.iter().filter(|(_, peer)| peer.hello.is_some()).map(|(node, _)| *node);
        let peer = ready.find(|node| peer.is_none_or(|wanted| wanted == *node));
        let (Some(peer), None) = (peer, &self.verifier.run) else {
            let refusal = if peer.is_none() { Refusal::NotElsewhere } else { Refusal::Overloaded };
            self.reply(ticket, Reply::Refused(refusal));
            return Ok(());
        };
        self.verify_with(peer, Some(ticket), repair, now)
    }

    /// Compares with a peer that has seen the same and holds something else, and mends what is wrong here.
    pub(super) fn verify_unasked(&mut self, peer: NodeId, now: Now) -> Result<(), StoreError> {
        let is_ready = self.peers.get(&peer).is_some_and(|peer| peer.hello.is_some());
        if !is_ready || self.verifier.run.is_some() || now.mono < self.verifier.unasked_due {
            return Ok(());
        }
        self.count("verifications_unasked");
        self.verify_with(peer, None, true, now)
    }

    fn verify_with(&mut self, peer: NodeId, ticket: Option<Ticket>, repair: bool, now: Now) -> Result<(), StoreError> {
        self.verifier.next_id += 1;
        let report = Verification { peer, ..Verification::default() };
        let (id, page, mending, begun) = (self.verifier.next_id, None, BTreeSet::new(), now.mono);
        self.verifier.run = Some(Run { id, ticket, begun, repair, report, page, mending, progressed: begun });
        self.count("verifications");
        self.verify_page(None, now)
    }

    /// Sums up the next page and asks the peer about it.
    fn verify_page(&mut self, after: Option<Key>, now: Now) -> Result<(), StoreError> {
        let rows = self.store.rows(after.as_ref(), VERIFY_PAGE)?;
        let upto = if rows.len() < VERIFY_PAGE { None } else { rows.last().map(|(key, _)| key.clone()) };
        let damaged: Vec<Key> =
            rows.iter().filter(|(key, entry)| !is_sound(key, entry)).map(|(key, _)| key.clone()).collect();
        let Some(run) = &mut self.verifier.run else { return Ok(()) };
        run.report.compared += rows.len() as u64;
        run.report.damaged += damaged.len() as u64;
        run.page = Some(Page { after: after.clone(), upto: upto.clone() });
        run.progressed = now.mono;
        let (id, peer) = (run.id, run.report.peer);
        let (count, sum) = sum_of(&rows);
        self.verify_repair(damaged, now);
        self.send(peer, &Message::VerifyRequest(VerifyRequest { id, after, upto, count, sum }));
        Ok(())
    }

    pub(super) fn on_verify_request(&mut self, node: NodeId, request: VerifyRequest) -> Result<(), StoreError> {
        let VerifyRequest { id, after, upto, count, sum } = request;
        let mut rows = self.store.rows(after.as_ref(), VERIFY_ROWS_MAX)?;
        let is_whole = rows.len() < VERIFY_ROWS_MAX
            || upto.as_ref().is_some_and(|upto| rows.last().is_some_and(|(key, _)| key > upto));
        if let Some(upto) = &upto {
            rows.retain(|(key, _)| key <= upto);
        }
        let agrees = is_whole && (count, sum) == sum_of(&rows);
        let answer = match agrees {
            true => VerifyAnswer { id, rows: None, upto: None },
            false => VerifyAnswer {
                id,
                upto: if is_whole { None } else { rows.last().map(|(key, _)| key.clone()) },
                rows: Some(rows.iter().map(|(key, entry)| VerifyRow::of(key, entry)).collect()),
            },
        };
        self.send(node, &Message::VerifyAnswer(answer));
        Ok(())
    }

    pub(super) fn on_verify_answer(&mut self, node: NodeId, answer: VerifyAnswer, now: Now) -> Result<(), StoreError> {
        let Some(run) = &self.verifier.run else { return Ok(()) };
        if run.id != answer.id || run.report.peer != node {
            return Ok(());
        }
        let Some(page) = run.page.clone() else { return Ok(()) };
        let upto = answer.upto.or(page.upto);
        if let Some(theirs) = answer.rows {
            self.compare_page(page.after, upto.as_ref(), theirs, now)?;
        }
        if let Some(run) = &mut self.verifier.run {
            run.progressed = now.mono;
            run.page = None;
        }
        match upto {
            Some(upto) => self.verify_page(Some(upto), now),
            None => {
                self.end_verification_if_done(now.mono, false);
                Ok(())
            }
        }
    }

    fn compare_page(
        &mut self,
        after: Option<Key>,
        upto: Option<&Key>,
        theirs: Vec<VerifyRow>,
        now: Now,
    ) -> Result<(), StoreError> {
        let mut theirs: BTreeMap<Key, VerifyRow> = theirs.into_iter().map(|row| (row.key.clone(), row)).collect();
        let mut ours = self.store.rows(after.as_ref(), VERIFY_ROWS_MAX)?;
        if let Some(upto) = upto {
            ours.retain(|(key, _)| key <= upto);
        }
        // A node begins by itself where both have seen the same: nothing is on its way then.
        let has_seen_all = self.verifier.run.as_ref().is_some_and(|run| run.ticket.is_none());
        let mut tally = Verification::default();
        let mut wrong = Vec::new();
        for (key, entry) in ours {
            match theirs.remove(&key) {
                Some(row) if row.hash == entry.hash => {}
                Some(row) if (row.marker, row.hash) > (entry.marker(), entry.hash) => {
                    match has_seen_all || self.versions.contains(&self.store, row.dot)? {
                        true => {
                            tally.stale += 1;
                            wrong.push(key);
                        }
                        false => tally.on_the_way += 1,
                    }
                }
                Some(_) => tally.behind_at_peer += 1,
                None if is_remnant(&entry) => {}
                None => tally.behind_at_peer += 1,
            }
        }
        for (key, row) in theirs {
            if self.deleted.contains(&key.namespace()) {
                continue;
            }
            match has_seen_all || self.versions.contains(&self.store, row.dot)? {
                true => {
                    tally.missing += 1;
                    wrong.push(key);
                }
                false => tally.on_the_way += 1,
            }
        }
        if let Some(Run { report, .. }) = &mut self.verifier.run {
            report.stale += tally.stale;
            report.missing += tally.missing;
            report.behind_at_peer += tally.behind_at_peer;
            report.on_the_way += tally.on_the_way;
        }
        self.verify_repair(wrong, now);
        Ok(())
    }

    /// Notes keys that are wrong here, and mends them if that is wanted.
    fn verify_repair(&mut self, keys: Vec<Key>, now: Now) {
        for key in keys {
            let Some(run) = &mut self.verifier.run else { return };
            if run.report.examples.len() < VERIFY_EXAMPLES_MAX {
                run.report.examples.push(key.clone());
            }
            if run.repair && run.mending.len() < VERIFY_MENDING_MAX && run.mending.insert(key.clone()) {
                let peer = run.report.peer;
                self.begin_repair(Damage::Entry(key), None, Some(peer), now);
            }
        }
    }

    /// A repair has ended, well or not.
    pub(super) fn verified_repair(&mut self, key: &Key, is_mended: bool) {
        if let Some(run) = self.verifier.run.as_mut().filter(|run| run.mending.contains(key)) {
            run.mending.remove(key);
            run.report.repaired += u64::from(is_mended);
            let progressed = run.progressed;
            self.end_verification_if_done(progressed, false);
        }
    }

    /// Gives up on a peer that is silent.
    pub(super) fn verification_on_time(&mut self, now: Mono) {
        let is_late = |run: &Run| run.progressed + VERIFY_TIMEOUT <= now;
        if self.verifier.run.as_ref().is_some_and(is_late) {
            self.end_verification_if_done(now, true);
        }
    }

    pub(super) fn verification_disconnected(&mut self, node: NodeId) {
        if self.verifier.run.as_ref().is_some_and(|run| run.report.peer == node) {
            self.end_verification_if_done(Mono(0), true);
        }
    }

    fn end_verification_if_done(&mut self, now: Mono, cut_short: bool) {
        let is_over = |run: &mut Run| cut_short || (run.page.is_none() && run.mending.is_empty());
        let Some(run) = self.verifier.run.take_if(is_over) else {
            if let Some(run) = &mut self.verifier.run {
                run.progressed = run.progressed.max(now);
            }
            return;
        };
        let report = Verification { cut_short, ..run.report };
        match run.ticket {
            Some(ticket) => self.reply(ticket, Reply::Verified(Box::new(report))),
            None => {
                let rest = Mono(run.progressed.since(run.begun).saturating_mul(VERIFY_REST)).max(VERIFY_REST_MIN);
                self.verifier.unasked_due = run.progressed + rest;
            }
        }
    }
}

impl VerifyRow {
    fn of(key: &Key, entry: &Entry) -> Self {
        let (dot, marker, hash) = (entry.dot, entry.marker(), entry.hash);
        Self { key: key.clone(), dot, marker, hash, is_remnant: is_remnant(entry) }
    }
}

fn is_remnant(entry: &Entry) -> bool {
    matches!(entry.content().value, Value::Tombstone | Value::Dropped(_))
}

fn sum_of(rows: &[(Key, Entry)]) -> (u64, u128) {
    let sum = rows.iter().fold(0_u128, |sum, (key, entry)| {
        // With the key, or two rows with their entries exchanged would sum up to the same.
        let mut hasher = blake3::Hasher::new();
        hasher.update(key.as_bytes());
        hasher.update(&entry.hash.0);
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        sum.wrapping_add(u128::from_be_bytes(hash))
    });
    (rows.len() as u64, sum)
}

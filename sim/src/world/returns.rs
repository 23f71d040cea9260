//! Machines that come back after an eviction: as another node over an empty directory, which catches up and issues
//! again what it alone had. What the driver does beside the replica is done here: keep the former directory, ask for one
//! write after another, and ask again after a crash.

use std::collections::BTreeMap;

use starling::replica::{Content, Entry, Key, NodeId, Reply, Request, Sabotage, Step, own_writes, sound_chunk};

use super::World;
use super::clients::Client;
use super::events::Event;
use crate::host::Former;

/// How long a machine waits before it tries again to be let in, or to issue what it could not.
const AGAIN_US: u64 = 300_000;
/// How often a machine asks to be let in where clocks were wrong.
const TRIES_MAX: u32 = 100;

impl World {
    /// Whoever runs the machine has heard that its node is evicted.
    pub(super) fn begin_return(&mut self, host: usize) {
        if std::mem::replace(&mut self.hosts[host].gone, true) {
            return;
        }
        self.crash(host, usize::MAX);
        self.will_return.insert(host, 0);
        self.return_as_another(host);
    }

    /// Asks to be let in, until someone does.
    pub(super) fn return_as_another(&mut self, host: usize) {
        let is_asking = self.returning.values().any(|asking| *asking == host);
        if !self.will_return.contains_key(&host) || is_asking {
            return;
        }
        let tries = self.will_return.entry(host).or_default();
        *tries += 1;
        if *tries > TRIES_MAX && self.hosts.iter().any(|host| host.clock_was_wrong) {
            // Those whose timestamps run ahead let nobody in: it stays away, with what it alone has.
            self.will_return.remove(&host);
            return self.judge.disturbed(host, &self.hosts, self.now_us);
        }
        let (node, place) = (self.draw_node(), self.hosts[host].place);
        self.returning.insert(node, host);
        self.admit(node, place);
        if !self.awaits(node) {
            self.not_let_in(node);
        }
    }

    /// Nobody could let it in, or it has not heard that somebody did.
    pub(super) fn not_let_in(&mut self, node: NodeId) {
        if let Some(host) = self.returning.remove(&node) {
            self.schedule(self.now_us + AGAIN_US, Event::Return { host });
        }
    }

    /// A node was let in. If a machine comes back as this one, it keeps what it was before.
    pub(super) fn returned(&mut self, host: usize) {
        let Some(before) = self.returning.remove(&self.hosts[host].node) else { return };
        self.will_return.remove(&before);
        let mut formers = std::mem::take(&mut self.hosts[before].formers);
        let (node, store) = (self.hosts[before].node, self.hosts[before].disk.clone());
        formers.push(Former { node, store, settled: false, left: None });
        self.hosts[host].formers = formers;
        self.watch.note(self.now_us, || format!("host {before} comes back as host {host}"));
    }

    /// Whether every machine that comes back has done so, and has nothing more to issue again.
    pub(super) fn all_have_returned(&self) -> bool {
        let is_done = |host: &crate::host::Host| host.gone || host.formers.iter().all(|former| former.settled);
        self.will_return.is_empty() && self.hosts.iter().all(is_done)
    }

    pub(super) fn reissue_soon(&mut self, host: usize) {
        if self.hosts[host].formers.iter().any(|former| !former.settled) {
            let boot = self.hosts[host].boot;
            self.schedule(self.now_us + AGAIN_US, Event::Reissue { host, boot });
        }
    }

    /// Asks for all that is left of the first former node that is not settled; the same again after a while.
    pub(super) fn reissue(&mut self, host: usize) {
        let has_others = self.sabotage == Sabotage::ReissueOthers;
        let Some(number) = self.hosts[host].formers.iter().position(|former| !former.settled) else { return };
        let former = &mut self.hosts[host].formers[number];
        let left = former.left.get_or_insert_with(|| {
            let nodes = match has_others {
                true => former.store.image().entries().map(|(_, entry)| entry.dot.origin.node).collect(),
                false => std::collections::BTreeSet::from([former.node]),
            };
            // Memory does not fail.
            let own = |node| own_writes(&former.store, node, None, usize::MAX).unwrap_or_default().writes;
            nodes.into_iter().flat_map(own).collect::<BTreeMap<Key, Entry>>()
        });
        former.settled = left.is_empty();
        for (key, entry) in left.clone() {
            self.ask_again(host, number, key, &entry);
        }
        self.reissue_soon(host);
    }

    fn ask_again(&mut self, host: usize, former: usize, key: Key, entry: &Entry) {
        let (marker, content): (_, Content) = (entry.marker(), entry.content().clone());
        let request = Request::Reissue { key: key.clone(), content, marker };
        let boot = self.hosts[host].boot;
        self.ask(host, request, Client::Reissue { former, key, boot });
    }

    pub(super) fn answered_again(&mut self, host: usize, number: usize, key: Key, boot: u64, reply: &Reply) {
        if self.hosts[host].boot != boot {
            return;
        }
        let Some(former) = self.hosts[host].formers.get_mut(number) else { return };
        let Some(entry) = former.left.as_ref().and_then(|left| left.get(&key)).cloned() else { return };
        match Step::after(reply) {
            Step::Later => {}
            Step::Settled(_) => {
                former.left.as_mut().and_then(|left| left.remove(&key));
                if let Reply::Written { dot, .. } = reply {
                    self.judge.reissued(host, &key, entry.marker(), *dot, &self.hosts, self.now_us);
                }
            }
            Step::Chunks => {
                let Some(blob) = entry.blob().cloned() else { return };
                for index in 0..blob.chunks.len() {
                    // Memory does not fail.
                    let Ok(Some(chunk)) = sound_chunk(&self.hosts[host].formers[number].store, &key, &blob, index)
                    else {
                        continue;
                    };
                    let request = Request::PutChunk { key: key.clone(), id: blob.id, index: index as u32, chunk };
                    self.ask(host, request, Client::Ignored);
                }
                self.ask_again(host, number, key, &entry);
            }
        }
    }
}

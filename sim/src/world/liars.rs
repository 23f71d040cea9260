//! Members that turn bad: what they send, how they are taken off the cluster, and whether what they wrote can be written
//! again.

use bytes::Bytes;
use starling::replica::{Dot, Key, Message, Request};

use super::World;
use super::clients::{Client, inline};
use crate::lies::{Knowledge, Liar, Lie};

impl World {
    /// From now on the host lies.
    pub(super) fn turn_bad(&mut self, host: usize, lies: &[Lie]) {
        let rng = World::new_rng(self.seed, 0x6c69_6172 + host as u64);
        self.hosts[host].liar = Some(Liar::new(lies.to_vec(), rng));
        // Nobody can tell whether its clock is right.
        self.hosts[host].clock_was_wrong = true;
        self.judge.turned_bad(self.hosts[host].node, lies.iter().any(|lie| lie.is_hearsay()));
    }

    /// A liar sends, in place of what its replica would say, what it likes.
    pub(super) fn lie(&mut self, host: usize, connection: usize, bytes: &Bytes) {
        let Some(mut liar) = self.hosts[host].liar.take() else { return };
        if let Ok(message) = Message::decode(bytes) {
            let this = &self.hosts[host];
            let wall_ms = this.now(self.now_us).wall_ms;
            let told = liar.tell(&message, &Knowledge { node: this.node, image: this.image(), wall_ms });
            self.hosts[host].liar = Some(liar);
            for (class, bytes) in told {
                self.post(host, connection, class, &bytes);
            }
        } else {
            self.hosts[host].liar = Some(liar);
        }
    }

    /// An operator takes those off the cluster who lie.
    pub(super) fn evict_liars(&mut self) {
        let liars = self.hosts.iter().filter(|host| host.liar.is_some() && !host.gone).map(|host| host.node);
        self.to_evict.extend(liars);
        self.evict_the_gone();
    }

    /// Whether an operator may work there.
    pub(super) fn can_operate(&self, host: usize) -> bool {
        let this = &self.hosts[host];
        this.is_up() && this.liar.is_none() && !self.to_evict.contains(&this.node)
    }

    /// Where there was a liar, every key must take a write of an honest node, made at any of them.
    pub(super) fn demand_all_keys(&mut self, hosts: &[usize]) {
        if self.hosts.iter().all(|host| host.liar.is_none()) {
            return;
        }
        let Some(first) = hosts.first() else { return };
        let of_clients = self.hosts[*first].image().entries().filter(|(key, _)| !key.namespace().is_system());
        let keys: Vec<Key> = of_clients.map(|(key, _)| key.clone()).collect();
        for (number, key) in keys.into_iter().enumerate() {
            let request = Request::Write { key: key.clone(), content: inline(vec![2]) };
            self.ask(hosts[number % hosts.len()], request, Client::Rewrites { key });
        }
    }

    /// And that write must be what everyone shows.
    pub(super) fn judge_rewritten(&mut self) {
        let shows =
            |host: &crate::host::Host, key: &Key, dot: Dot| host.image().entry(key).map(|entry| entry.dot) == Some(dot);
        let frozen = self.rewritten.iter().find_map(|(key, dot)| {
            let up = self.hosts.iter().enumerate().filter(|(_, host)| host.is_up());
            up.filter(|(_, host)| !shows(host, key, *dot)).map(|(host, _)| (host, key.clone(), *dot)).next()
        });
        if let Some((host, key, dot)) = frozen {
            let held = self.hosts[host].image().entry(&key).map(|entry| (entry.dot, entry.marker()));
            self.judge.found("frozen", self.now_us, || {
                format!("host {host} does not show {dot}, the last write of {key:?}, but {held:?}")
            });
        }
    }
}

//! Something that stands between clients and nodes and lies in one way: so it is known that the checker bites. The program
//! under test holds no sabotage for that, and nothing that could be switched on by accident.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use hyper::{HeaderMap, Method};
use serde_json::Value as Json;

use crate::api::{Answer, Api, Unanswered};

/// Of the requests that a lie can be told to, it is told to one in so many.
const ONE_IN: u64 = 2;

/// A way to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lie {
    /// Some writes are acknowledged and thrown away
    LoseWrites,
    /// A node that is killed comes back as it was when chaos began
    ForgetWhenKilled,
    /// Writes are said to be on every node's disk
    ClaimAcks,
    /// Some reads show what a key held before
    ShowOld,
    /// Some deleted keys show their last value again
    Resurrect,
    /// Bookmarks are passed over
    IgnoreBookmarks,
    /// Values never expire
    KeepExpired,
    /// Lists leave keys out
    HideFromLists,
    /// One node ends with another value than the others
    Differ,
}

/// Who tells it.
pub struct Liar {
    lie: Lie,
    /// The names of all nodes, with commas between them.
    names: String,
    /// Requests that the lie could be told to.
    chances: AtomicU64,
    /// What was acknowledged for each key, by path: the last one, and the one before.
    told: Mutex<BTreeMap<String, [Option<Bytes>; 2]>>,
}

impl Liar {
    /// Lies about nodes of these names.
    pub fn new(lie: Lie, names: &[String]) -> Self {
        Self { lie, names: names.join(","), chances: AtomicU64::new(0), told: Mutex::default() }
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<String, [Option<Bytes>; 2]>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a node, or pretends to.
    pub async fn ask(
        &self,
        node: usize,
        api: &Api,
        (method, path): (Method, &str),
        headers: &[(&str, &str)],
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer, Unanswered> {
        let key = path.split('?').next().unwrap_or_default().to_owned();
        let is_turn = || self.chances.fetch_add(1, Ordering::Relaxed).is_multiple_of(ONE_IN);
        let is_put = method == Method::PUT;
        let is_get = method == Method::GET && key.contains("/values/");
        let path = match self.lie {
            Lie::KeepExpired if is_put => &key,
            _ => path,
        };
        let is_dropped = |name: &str| match self.lie {
            Lie::IgnoreBookmarks => name == "starling-bookmark",
            Lie::ClaimAcks => name == "starling-acks",
            _ => false,
        };
        let headers: Vec<_> = headers.iter().filter(|(name, _)| !is_dropped(name)).copied().collect();
        if self.lie == Lie::LoseWrites && is_put && is_turn() {
            let body = Bytes::from_static(br#"{"success":true}"#);
            return Ok(Answer { status: 200, headers: HeaderMap::new(), body });
        }
        let written = is_put.then(|| body.clone());
        let mut answer = api.ask(method.clone(), path, &headers, body, patience).await?;
        if answer.status == 200 && (is_put || method == Method::DELETE) {
            let mut told = self.told();
            let [last, before] = told.entry(key.clone()).or_default();
            *before = std::mem::replace(last, written);
            if self.lie == Lie::ClaimAcks
                && let Ok(names) = self.names.parse()
            {
                answer.headers.insert("starling-acked-by", names);
            }
        }
        let before = || self.told().get(&key).and_then(|[_, before]| before.clone());
        match self.lie {
            Lie::ShowOld | Lie::Resurrect if is_get => {
                let status = if self.lie == Lie::ShowOld { 200 } else { 404 };
                if answer.status == status
                    && let Some(old) = before()
                    && is_turn()
                {
                    answer = Answer { status: 200, headers: answer.headers, body: old };
                }
            }
            Lie::HideFromLists if key.ends_with("/keys") => {
                change(&mut answer, |json| {
                    if let Some(keys) = json["result"].as_array_mut() {
                        let mut at = 0;
                        keys.retain(|_| {
                            at += 1;
                            at % 2 == 0
                        });
                    }
                });
            }
            Lie::Differ if node == 0 && key.ends_with("/bulk/get") => change(&mut answer, |json| {
                let values = json["result"]["values"].as_object_mut();
                if let Some(value) = values.and_then(|values| values.values_mut().next()) {
                    *value = Json::from("something else");
                }
            }),
            _ => {}
        }
        Ok(answer)
    }
}

fn change(answer: &mut Answer, change: impl FnOnce(&mut Json)) {
    if let Ok(mut json) = serde_json::from_slice(&answer.body) {
        change(&mut json);
        answer.body = json.to_string().into();
    }
}

//! What a token may do. Whoever serves requests asks [`Grants::allow`]; there is no other rule anywhere.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::replica::NamespaceId;

/// One thing that a token may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Values and metadata of keys that are named.
    Read,
    /// Setting and deleting values.
    Write,
    /// Which keys there are, with their metadata.
    List,
    /// The account's namespaces and tokens.
    Admin,
    /// The account's Workers: scripts, routes, secrets.
    Deploy,
    /// The cluster: nodes, keys, accounts, the audit log.
    Operate,
}

impl Scope {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::Read, Self::Write, Self::List, Self::Admin, Self::Deploy, Self::Operate];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::List => "list",
            Self::Admin => "admin",
            Self::Deploy => "deploy",
            Self::Operate => "operate",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::List => 4,
            Self::Admin => 8,
            Self::Deploy => 16,
            Self::Operate => 32,
        }
    }

    pub(super) fn of_bits(bits: u8) -> BTreeSet<Self> {
        Self::ALL.into_iter().filter(|scope| bits & scope.bit() != 0).collect()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|scope| scope.as_str()).collect();
            format!("\"{text}\" is no scope; there are {}", known.join(", "))
        })
    }
}

/// What a token may do, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// What.
    pub scopes: BTreeSet<Scope>,
    /// In these namespaces; empty: in all of the account, those to come included.
    pub namespaces: BTreeSet<NamespaceId>,
}

impl Grants {
    /// Everything.
    pub fn all() -> Self {
        Self { scopes: Scope::ALL.into(), namespaces: BTreeSet::new() }
    }

    /// Whether `scope` is granted, for `namespace` or, with `None`, for the account as a whole: a token that is
    /// limited to some namespaces does nothing that concerns all.
    pub fn allow(&self, scope: Scope, namespace: Option<NamespaceId>) -> bool {
        let reaches = match namespace {
            Some(namespace) => self.sees(namespace),
            None => self.namespaces.is_empty(),
        };
        reaches && self.scopes.contains(&scope)
    }

    /// Whether the token reaches into `namespace` at all.
    pub fn sees(&self, namespace: NamespaceId) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(&namespace)
    }

    /// Whether all of `other` is granted: nobody can hand out more than they have.
    pub fn cover(&self, other: &Self) -> bool {
        let places = self.namespaces.is_empty()
            || (!other.namespaces.is_empty() && other.namespaces.is_subset(&self.namespaces));
        places && other.scopes.is_subset(&self.scopes)
    }

    pub(super) fn bits(&self) -> u8 {
        self.scopes.iter().map(|scope| scope.bit()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_read_back() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            assert_eq!(Scope::of_bits(scope.bit()), [scope].into());
        }
        assert!("root".parse::<Scope>().is_err_and(|error| error.contains("operate")));
    }

    #[test]
    fn a_token_for_one_namespace_does_nothing_elsewhere() {
        let (mine, other) = (NamespaceId([1; 16]), NamespaceId([2; 16]));
        let grants = Grants { scopes: [Scope::Read, Scope::Admin].into(), namespaces: [mine].into() };
        assert!(grants.allow(Scope::Read, Some(mine)) && !grants.allow(Scope::Write, Some(mine)));
        assert!(!grants.allow(Scope::Read, Some(other)) && !grants.allow(Scope::Admin, None));
        assert!(Grants::all().cover(&grants) && !grants.cover(&Grants::all()));
        assert!(grants.cover(&Grants { scopes: [Scope::Read].into(), namespaces: [mine].into() }));
        assert!(!grants.cover(&Grants { scopes: [Scope::Read].into(), namespaces: [].into() }), "all is more than one");
    }
}

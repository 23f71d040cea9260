//! What a version's names stand for: checked when it is uploaded, taken over from the version before where the client
//! says so.

use std::collections::BTreeMap;

use super::files::Kind;
use super::limits::{BINDING_NAME_LEN_MAX, BINDINGS_MAX, VARIABLE_LEN_MAX};
use super::rows::BindingRow;
use super::{Life, Version, WorkerError, Workers};
use crate::kv::{AccountId, KvError, NamespaceId};
use crate::secret::Secret;

/// A binding as it is uploaded.
#[derive(Debug, Clone)]
pub enum NewBinding {
    /// A namespace of the same account.
    Kv(NamespaceId),
    /// A string.
    Text(String),
    /// JSON text.
    Json(String),
    /// A string that is never shown.
    Secret(Secret),
    /// The static assets.
    Assets,
    /// Whatever this name stands for in the latest version.
    Inherit(String),
}

/// A binding as it is shown: a secret without what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// A namespace.
    Kv(NamespaceId),
    /// A string.
    Text(String),
    /// JSON text.
    Json(String),
    /// A string that is never shown.
    Secret,
    /// The static assets.
    Assets,
}

impl Bound {
    /// Cloudflare's name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Kv(_) => "kv_namespace",
            Self::Text(_) => "plain_text",
            Self::Json(_) => "json",
            Self::Secret => "secret_text",
            Self::Assets => "assets",
        }
    }
}

impl From<&BindingRow> for Bound {
    fn from(row: &BindingRow) -> Self {
        match row {
            BindingRow::Kv(namespace) => Self::Kv(NamespaceId(*namespace)),
            BindingRow::Text(text) => Self::Text(text.clone()),
            BindingRow::Json(text) => Self::Json(text.clone()),
            BindingRow::Secret(_) => Self::Secret,
            BindingRow::Assets => Self::Assets,
        }
    }
}

fn wrong(name: &str, why: impl Into<String>) -> WorkerError {
    WorkerError::Binding { name: name.chars().take(BINDING_NAME_LEN_MAX).collect(), why: why.into() }
}

impl Workers {
    /// The rows of a version's bindings; what is secret is kept in files of its own.
    pub(super) async fn bind(
        &self,
        account: AccountId,
        life: Life,
        new: Vec<(String, NewBinding)>,
        keep: &[String],
        base: Option<&Version>,
    ) -> Result<Vec<(String, BindingRow)>, WorkerError> {
        let held: BTreeMap<&str, &BindingRow> =
            base.iter().flat_map(|base| base.row.bindings.iter().map(|(name, row)| (&**name, row))).collect();
        let mut bound: Vec<(String, BindingRow)> = Vec::with_capacity(new.len());
        for (name, binding) in new {
            if name.is_empty() || name.len() > BINDING_NAME_LEN_MAX || name.chars().any(char::is_control) {
                let why = format!("a name has 1 to {BINDING_NAME_LEN_MAX} bytes and no control characters");
                return Err(wrong(&name, why));
            }
            if bound.iter().any(|(other, _)| *other == name) {
                return Err(wrong(&name, "there are two of this name"));
            }
            let row = match binding {
                NewBinding::Kv(namespace) => match self.kv.namespace(account, namespace) {
                    Ok(_) => BindingRow::Kv(namespace.0),
                    Err(KvError::NamespaceNotFound) => {
                        return Err(WorkerError::NamespaceMissing { name, id: namespace.to_string() });
                    }
                    Err(error) => return Err(error.into()),
                },
                NewBinding::Text(text) => BindingRow::Text(fitting(&name, text)?),
                NewBinding::Json(text) => BindingRow::Json(fitting(&name, text)?),
                NewBinding::Assets => BindingRow::Assets,
                NewBinding::Secret(secret) => self.keep_secret(life, &name, &secret).await?,
                NewBinding::Inherit(from) => match held.get(&*from) {
                    Some(row) => (*row).clone(),
                    None => return Err(wrong(&name, format!("the latest version has no {from:?} to inherit"))),
                },
            };
            bound.push((name, row));
        }
        for (name, row) in held {
            if keep.iter().any(|kind| kind == Bound::from(row).type_name())
                && bound.iter().all(|(other, _)| other != name)
            {
                bound.push((name.to_owned(), row.clone()));
            }
        }
        if bound.len() > BINDINGS_MAX {
            return Err(WorkerError::TooManyBindings);
        }
        Ok(bound)
    }

    pub(super) async fn keep_secret(&self, life: Life, name: &str, secret: &Secret) -> Result<BindingRow, WorkerError> {
        let text = secret.expose();
        if text.len() > VARIABLE_LEN_MAX {
            return Err(WorkerError::VariableTooLarge(name.into(), text.len()));
        }
        let mut id = [0; 32];
        id[..16].copy_from_slice(&self.kv.random_id());
        id[16..].copy_from_slice(&self.kv.random_id());
        self.keep_file(life, (Kind::Secret, id), text.as_bytes().to_vec().into(), None).await?;
        Ok(BindingRow::Secret(id))
    }
}

fn fitting(name: &str, text: String) -> Result<String, WorkerError> {
    match text.len() {
        0..=VARIABLE_LEN_MAX => Ok(text),
        len => Err(WorkerError::VariableTooLarge(name.into(), len)),
    }
}

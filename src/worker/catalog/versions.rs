//! Versions: what was uploaded, once and for ever the same.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::files::{Kind, id_of};
use super::limits::{
    ANNOTATIONS_LEN_MAX, CODE_LEN_MAX, FLAG_LEN_MAX, FLAGS_MAX, MODULE_LEN_MAX, MODULE_NAME_LEN_MAX, MODULES_MAX,
};
use super::rows::{BindingRow, ModuleRow, ROW_VERSION, Tag, VersionRow};
use super::{Bound, Life, NewAssets, NewBinding, Script, Uuid, WorkerError, Workers, short};
use crate::kv::{AccountId, KvError};
use crate::secret::Secret;
use crate::worker::{Module, ModuleKind, Syntax};

/// What runtimes do where no date is given: Cloudflare's first.
const DATE_DEFAULT: &str = "2021-11-02";

/// What makes a version.
#[derive(Debug, Clone)]
pub struct Upload {
    /// How the code is written.
    pub syntax: Syntax,
    /// The main one first; none if there are only static assets.
    pub modules: Vec<Module>,
    /// Names and what they stand for.
    pub bindings: Vec<(String, NewBinding)>,
    /// Types of bindings that are taken over from the latest version.
    pub keep: Vec<String>,
    /// `YYYY-MM-DD`.
    pub compatibility_date: Option<String>,
    /// Exceptions to the date.
    pub compatibility_flags: Vec<String>,
    /// Longest that a request may compute, in milliseconds.
    pub cpu_ms: Option<u32>,
    /// Static files.
    pub assets: NewAssets,
    /// Who uploads it.
    pub author: String,
    /// With what.
    pub source: String,
    /// JSON text of an object.
    pub annotations: String,
    /// What else the client wants to hear again, as JSON text of an object.
    pub remarks: String,
}

/// One version.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its id.
    pub id: Uuid,
    pub(super) row: VersionRow,
}

/// One module of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    /// As imported.
    pub name: String,
    /// What importing it gives.
    pub kind: ModuleKind,
    /// Bytes.
    pub len: u64,
}

impl Version {
    /// Counts a script's versions, from 1 on. Two that were uploaded at one moment at two PoPs may have one number.
    pub fn number(&self) -> u64 {
        self.row.number
    }

    /// Unix milliseconds.
    pub fn created_ms(&self) -> u64 {
        self.row.created_ms
    }

    /// Who uploaded it.
    pub fn author(&self) -> &str {
        &self.row.author
    }

    /// With what.
    pub fn source(&self) -> &str {
        &self.row.source
    }

    /// JSON text of an object.
    pub fn annotations(&self) -> &str {
        &self.row.annotations
    }

    /// JSON text of an object.
    pub fn remarks(&self) -> &str {
        &self.row.remarks
    }

    /// How its code is written.
    pub fn syntax(&self) -> Syntax {
        self.row.syntax()
    }

    /// The main one first.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = ModuleInfo> {
        self.row.modules.iter().map(|module| ModuleInfo {
            name: module.name.clone(),
            kind: module.kind,
            len: module.len,
        })
    }

    /// In the order of the upload.
    pub fn bindings(&self) -> impl ExactSizeIterator<Item = (&str, Bound)> {
        self.row.bindings.iter().map(|(name, row)| (&**name, Bound::from(row)))
    }

    /// `YYYY-MM-DD`.
    pub fn compatibility_date(&self) -> &str {
        &self.row.compatibility_date
    }

    /// Exceptions to the date.
    pub fn compatibility_flags(&self) -> &[String] {
        &self.row.compatibility_flags
    }

    /// Longest that a request may compute, in milliseconds.
    pub fn cpu_ms(&self) -> Option<u32> {
        self.row.cpu_ms
    }

    /// Whether it has static files.
    pub fn has_assets(&self) -> bool {
        self.row.assets.is_some()
    }

    /// Hexadecimal digits that tell its code from any other.
    pub fn etag(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for module in &self.row.modules {
            hasher.update(&(module.name.len() as u64).to_be_bytes()).update(module.name.as_bytes());
            hasher.update(&[module.kind as u8]).update(&module.hash);
        }
        hasher.update(&self.row.assets.unwrap_or_default());
        hasher.finalize().to_hex().to_string()
    }

    /// Bytes of all modules.
    pub fn len(&self) -> u64 {
        self.row.modules.iter().map(|module| module.len).sum()
    }

    /// Whether it has no code.
    pub fn is_empty(&self) -> bool {
        self.row.modules.is_empty()
    }
}

impl Workers {
    /// Makes a version of what was uploaded, and a script if there is none of that name. It gets no requests yet: see
    /// [`Workers::deploy`].
    pub async fn upload(
        &self,
        account: AccountId,
        name: &str,
        upload: Upload,
    ) -> Result<(Script, Version), WorkerError> {
        check(&upload)?;
        let (unfit, syntax, modules) = (self.inner.unfit, upload.syntax, upload.modules.clone());
        // It compiles them, which takes a while if there are many.
        let why = tokio::task::spawn_blocking(move || unfit(&modules, syntax)).await;
        if let Some(why) = why.map_err(|error| WorkerError::Unfit(error.to_string()))? {
            return Err(WorkerError::Unfit(why));
        }
        let session = match &upload.assets {
            NewAssets::Uploaded { token, .. } => Some(self.session(account, token).await?),
            NewAssets::None | NewAssets::Keep => None,
        };
        let life = session.as_ref().map(|session| session.life);
        let _deploys = self.inner.deploys.lock().await;
        let (script, is_new) = self.script_or_new(account, name, life).await?;
        let base = if is_new { None } else { self.latest(&script).await? };
        let Upload { syntax, modules, bindings, keep, assets, .. } = upload;
        let assets = self.list_assets(script.life, assets, session, base.as_ref()).await?;
        if modules.is_empty() && assets.is_none() {
            return Err(WorkerError::NoCode);
        }
        let bindings = self.bind(account, script.life, bindings, &keep, base.as_ref()).await?;
        let modules = self.keep_modules(script.life, modules).await?;
        let row = VersionRow {
            version: ROW_VERSION,
            number: base.map_or(0, |base| base.row.number) + 1,
            created_ms: self.kv.now_ms(),
            author: short(&upload.author),
            source: short(&upload.source),
            annotations: upload.annotations,
            is_module_syntax: syntax == Syntax::Modules,
            modules,
            bindings,
            compatibility_date: upload.compatibility_date.unwrap_or_else(|| DATE_DEFAULT.into()),
            compatibility_flags: upload.compatibility_flags,
            cpu_ms: upload.cpu_ms,
            assets,
            remarks: upload.remarks,
        };
        let version = self.write_version(&script, row).await?;
        if is_new {
            self.write_head(&script).await?;
        }
        Ok((script, version))
    }

    /// Makes a version like the latest one but for some secrets: `None` takes one away. It gets no requests yet.
    pub async fn change_secrets(
        &self,
        script: &Script,
        changes: Vec<(String, Option<Secret>)>,
        author: &str,
        source: &str,
        annotations: String,
    ) -> Result<Version, WorkerError> {
        check_remarks(&annotations)?;
        let _deploys = self.inner.deploys.lock().await;
        let base = self.latest(script).await?.ok_or(WorkerError::ScriptNotFound)?;
        let mut row = base.row;
        for (name, secret) in changes {
            let held = row.bindings.iter().position(|(other, _)| *other == name);
            match (held.and_then(|at| row.bindings.get(at)).map(|(_, held)| held), secret) {
                (Some(BindingRow::Secret(_)), None) => {
                    row.bindings.retain(|(other, _)| *other != name);
                }
                (_, None) => return Err(WorkerError::SecretNotFound(name)),
                (Some(BindingRow::Secret(_)) | None, Some(secret)) => {
                    let new = self.keep_secret(script.life, &name, &secret).await?;
                    row.bindings.retain(|(other, _)| *other != name);
                    row.bindings.push((name, new));
                }
                (Some(_), Some(_)) => return Err(WorkerError::BindingTaken(name)),
            }
        }
        if row.bindings.len() > super::limits::BINDINGS_MAX {
            return Err(WorkerError::TooManyBindings);
        }
        row.number += 1;
        (row.created_ms, row.author, row.source) = (self.kv.now_ms(), short(author), short(source));
        row.annotations = annotations;
        self.write_version(script, row).await
    }

    /// Makes a version like the latest one but for what `change` does to its settings. It gets no requests yet.
    pub async fn change_settings(
        &self,
        script: &Script,
        change: SettingsChange,
        author: &str,
        source: &str,
    ) -> Result<Version, WorkerError> {
        let _deploys = self.inner.deploys.lock().await;
        let base = self.latest(script).await?.ok_or(WorkerError::ScriptNotFound)?;
        let mut row = base.row.clone();
        if let Some(bindings) = change.bindings {
            row.bindings = self.bind(script.id.account, script.life, bindings, &change.keep, Some(&base)).await?;
        }
        if let Some(date) = change.compatibility_date {
            check_date(&date)?;
            row.compatibility_date = date;
        }
        if let Some(flags) = change.compatibility_flags {
            check_flags(&flags)?;
            row.compatibility_flags = flags;
        }
        if let Some(cpu_ms) = change.cpu_ms {
            row.cpu_ms = cpu_ms;
        }
        if let Some(remarks) = change.remarks {
            check_remarks(&remarks)?;
            row.remarks = remarks;
        }
        row.number += 1;
        (row.created_ms, row.author, row.source) = (self.kv.now_ms(), short(author), short(source));
        row.annotations = "{}".into();
        self.write_version(script, row).await
    }

    /// A script's versions, newest first.
    pub async fn versions(&self, script: &Script) -> Result<Vec<Version>, KvError> {
        let rows = self.rows::<VersionRow>(&Tag::Version.key(&[&script.life.0])).await?;
        let version = |(rest, row): (Bytes, VersionRow)| Some(Version { id: Uuid(rest[..].try_into().ok()?), row });
        let mut versions: Vec<Version> = rows.into_iter().filter_map(version).collect();
        versions.sort_by_key(|version| std::cmp::Reverse((version.row.number, version.row.created_ms, version.id)));
        Ok(versions)
    }

    /// The version that was uploaded last.
    pub async fn latest(&self, script: &Script) -> Result<Option<Version>, KvError> {
        Ok(self.versions(script).await?.into_iter().next())
    }

    /// One version of a script.
    pub async fn version(&self, script: &Script, id: Uuid) -> Result<Version, WorkerError> {
        let row = self.row(&Tag::Version.key(&[&script.life.0, &id.0])).await?;
        row.map(|row| Version { id, row }).ok_or_else(|| WorkerError::VersionNotFound(id.to_string()))
    }

    /// A version's modules with their content, the main one first.
    pub async fn content(&self, script: &Script, version: &Version) -> Result<Vec<Module>, WorkerError> {
        let mut modules = Vec::with_capacity(version.row.modules.len());
        for module in &version.row.modules {
            let body = self.file(script.life, (Kind::Module, module.hash)).await?;
            let body = body.ok_or_else(|| WorkerError::VersionNotFound(version.id.to_string()))?;
            modules.push(Module { name: module.name.clone(), kind: module.kind, body });
        }
        Ok(modules)
    }

    async fn keep_modules(&self, life: Life, modules: Vec<Module>) -> Result<Vec<ModuleRow>, KvError> {
        let mut rows = Vec::with_capacity(modules.len());
        for module in modules {
            let id = id_of(Kind::Module, &module.body);
            let (kind, len) = (module.kind, module.body.len() as u64);
            self.keep_file(life, id, module.body, None).await?;
            rows.push(ModuleRow { name: module.name, kind, hash: id.1, len });
        }
        Ok(rows)
    }

    async fn write_version(&self, script: &Script, row: VersionRow) -> Result<Version, WorkerError> {
        let id = self.uuid();
        self.set(&Tag::Version.key(&[&script.life.0, &id.0]), &row).await?;
        Ok(Version { id, row })
    }
}

/// What is to be changed of a script without its code; `None` leaves things as they are.
#[derive(Debug, Clone, Default)]
pub struct SettingsChange {
    /// All names, and what they stand for.
    pub bindings: Option<Vec<(String, NewBinding)>>,
    /// Types of bindings that are taken over, where bindings are given.
    pub keep: Vec<String>,
    /// `YYYY-MM-DD`.
    pub compatibility_date: Option<String>,
    /// Exceptions to the date.
    pub compatibility_flags: Option<Vec<String>>,
    /// Longest that a request may compute, in milliseconds; `Some(None)` for no limit.
    pub cpu_ms: Option<Option<u32>>,
    /// What else the client wants to hear again.
    pub remarks: Option<String>,
}

fn check(upload: &Upload) -> Result<(), WorkerError> {
    if upload.modules.len() > MODULES_MAX {
        return Err(WorkerError::TooManyModules);
    }
    let (mut names, mut len) = (BTreeSet::new(), 0);
    for module in &upload.modules {
        let name = &module.name;
        if name.is_empty() || name.len() > MODULE_NAME_LEN_MAX || name.chars().any(char::is_control) {
            return Err(WorkerError::ModuleName(name.chars().take(MODULE_NAME_LEN_MAX).collect()));
        }
        if !names.insert(name) {
            return Err(WorkerError::SameModule(name.clone()));
        }
        if module.body.len() > MODULE_LEN_MAX {
            return Err(WorkerError::ModuleTooLarge(name.clone(), module.body.len()));
        }
        len += module.body.len();
    }
    if len > CODE_LEN_MAX {
        return Err(WorkerError::CodeTooLarge);
    }
    if let Some(date) = &upload.compatibility_date {
        check_date(date)?;
    }
    check_flags(&upload.compatibility_flags)?;
    check_remarks(&upload.annotations)?;
    check_remarks(&upload.remarks)
}

fn check_flags(flags: &[String]) -> Result<(), WorkerError> {
    let len = flags.iter().map(String::len).max().unwrap_or(0);
    if flags.len() > FLAGS_MAX || len > FLAG_LEN_MAX {
        return Err(WorkerError::RemarksTooLarge(flags.len() * len));
    }
    Ok(())
}

pub(super) fn check_remarks(text: &str) -> Result<(), WorkerError> {
    if text.len() > ANNOTATIONS_LEN_MAX {
        return Err(WorkerError::RemarksTooLarge(text.len()));
    }
    Ok(())
}

fn check_date(date: &str) -> Result<(), WorkerError> {
    let number = |from, to| date.get(from..to).and_then(|digits| digits.parse::<u32>().ok());
    let is_date = date.len() == 10
        && date
            .bytes()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() })
        && number(5, 7).is_some_and(|month| (1..=12).contains(&month))
        && number(8, 10).is_some_and(|day| (1..=31).contains(&day));
    if is_date { Ok(()) } else { Err(WorkerError::Date(date.chars().take(32).collect())) }
}

//! Finds workerd on this machine: where the operator says, where `starling workers install` puts it, on the `PATH`, or
//! among the packages of a project that the node was started in.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::datadir::WORKERD;

/// Where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The program itself.
    pub path: PathBuf,
    /// What it says of its version.
    pub version: String,
}

/// It was not found, or does not run.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// Nowhere.
    #[error("workerd is not installed: `starling workers install` puts it into the data directory")]
    Nowhere,
    /// There, but it does not run.
    #[error("{} does not run: {reason}", path.display())]
    Broken {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The version that this Starling was tested with, as npm has it for one kind of machine.
#[derive(Debug, Clone, Copy)]
pub struct Pinned {
    /// The package, without its scope.
    package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The hash of its content.
    integrity: &'static str,
    /// Bytes, unpacked.
    pub len: u64,
}

const VERSION: &str = "1.20261117.1";

impl Pinned {
    /// For the machine that this runs on, if there is one.
    pub fn of_this_machine() -> Option<Self> {
        let (package, integrity, len) = match std::env::consts::ARCH {
            "x86_64" => (
                "workerd-linux-64",
                "sha512-gZLA8X11m/luZwn+YA3+mDu61vdxNJzpksP/QZqjydKTQ+VUCulsK5gtn9Bqst1p3KJu2kafQpJ1nDQv4B23jA==",
                162_300_000,
            ),
            "aarch64" => (
                "workerd-linux-arm64",
                "sha512-gxWngFojq41ULKNKb9rpWYvKotN5hT2I/xot+Bpy31cXzrwcTgtDLSMb2t75sW5BJxH7hihFvikgYb577kB3Zg==",
                160_000_000,
            ),
            _ => return None,
        };
        Some(Self { package, version: VERSION, integrity, len })
    }

    /// The program, within the directory of an installation.
    pub fn program(&self, installed: &Path) -> PathBuf {
        within(&installed.join("node_modules"))
    }

    /// Whether that directory has this version.
    pub fn is_at(&self, installed: &Path) -> bool {
        let lock = std::fs::read_to_string(installed.join("package-lock.json"));
        lock.is_ok_and(|lock| lock == self.lock()) && self.program(installed).is_file()
    }

    /// A `package.json` that asks for it and nothing else.
    pub fn package(&self) -> String {
        let name = format!("@cloudflare/{}", self.package);
        json!({ "private": true, "dependencies": { name: self.version } }).to_string()
    }

    /// The lock file to it, which names the hash and no registry.
    pub fn lock(&self) -> String {
        let name = format!("@cloudflare/{}", self.package);
        json!({
            "lockfileVersion": 3,
            "requires": true,
            "packages": {
                "": { "dependencies": { &name: self.version } },
                format!("node_modules/{name}"): { "version": self.version, "integrity": self.integrity },
            },
        })
        .to_string()
    }
}

/// Within a directory of npm packages.
pub fn within(modules: &Path) -> PathBuf {
    let package = Pinned::of_this_machine().map_or("workerd-linux-64", |pin| pin.package);
    modules.join("@cloudflare").join(package).join("bin/workerd")
}

/// Finds it, and has it tell its version.
///
/// # Errors
/// If there is none, or the one that was named does not run.
pub fn find(named: Option<&Path>, data: &Path) -> Result<Found, NotFound> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => candidates(data).find(|path| path.is_file()).ok_or(NotFound::Nowhere)?,
    };
    let broken = |reason: String| NotFound::Broken { path: path.clone(), reason };
    let said = std::process::Command::new(&path).arg("--version").env_clear().output();
    let said = said.map_err(|error| broken(error.to_string()))?;
    if !said.status.success() {
        return Err(broken(String::from_utf8_lossy(&said.stderr).trim().chars().take(500).collect()));
    }
    let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    Ok(Found { path: std::path::absolute(&path).unwrap_or(path), version })
}

fn candidates(data: &Path) -> impl Iterator<Item = PathBuf> {
    let installed = within(&installed_at(data).join("node_modules"));
    let search = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&search)
        .filter(|directory| directory.is_absolute())
        .flat_map(|directory| {
            // What npm links there is a script that needs node; the program is beside it.
            let link = std::fs::canonicalize(directory.join("workerd")).unwrap_or_default();
            let beside = link.ancestors().find(|dir| dir.ends_with("node_modules")).map(within);
            let itself = (!link.as_os_str().is_empty() && is_program(&link)).then_some(link);
            itself.into_iter().chain(beside)
        })
        .collect();
    let here = std::env::current_dir().unwrap_or_default();
    let projects: Vec<PathBuf> = here.ancestors().map(|dir| within(&dir.join("node_modules"))).collect();
    [installed].into_iter().chain(on_path).chain(projects)
}

/// Where `starling workers install` puts it.
pub fn installed_at(data: &Path) -> PathBuf {
    data.join(WORKERD)
}

fn is_program(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic));
    read.is_ok() && magic == *b"\x7fELF"
}

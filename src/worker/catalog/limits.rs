//! Every bound of the catalog, named.

use crate::replica::limits::VALUE_LEN_MAX;

/// Longest name of a script in bytes: it is a label of a host name.
pub const NAME_LEN_MAX: usize = 63;
/// Most scripts of one account, as far as the creating node knows.
pub const SCRIPTS_MAX: usize = 1_000;
/// Most modules of a version.
pub const MODULES_MAX: usize = 1_000;
/// Longest name of a module, in bytes.
pub const MODULE_NAME_LEN_MAX: usize = 512;
/// Longest module, in bytes: what one value may have.
pub const MODULE_LEN_MAX: usize = VALUE_LEN_MAX;
/// All modules of a version, in bytes.
pub const CODE_LEN_MAX: usize = 64 * 1024 * 1024;
/// Most bindings of a version.
pub const BINDINGS_MAX: usize = 128;
/// Longest name of a binding, in bytes.
pub const BINDING_NAME_LEN_MAX: usize = 256;
/// Longest text or JSON binding, and longest secret, in bytes.
pub const VARIABLE_LEN_MAX: usize = 5 * 1024;
/// All annotations, or all settings, in bytes of JSON text.
pub const ANNOTATIONS_LEN_MAX: usize = 16 * 1024;
/// Most compatibility flags of a version, and the longest, in bytes.
pub const FLAGS_MAX: usize = 64;
/// See [`FLAGS_MAX`].
pub const FLAG_LEN_MAX: usize = 128;
/// Versions kept of a script, beside those in use; beyond it the oldest go.
pub const VERSIONS_KEPT_MAX: usize = 100;
/// Code of the versions kept of a script, in bytes, beside those in use.
pub const VERSIONS_LEN_KEPT_MAX: u64 = 512 * 1024 * 1024;
/// Deployments kept of a script.
pub const DEPLOYMENTS_KEPT_MAX: usize = 100;
/// Versions in one deployment.
pub const DEPLOYED_MAX: usize = 2;
/// Most routes of one account.
pub const ROUTES_MAX: usize = 1_000;
/// Longest pattern of a route, in bytes.
pub const PATTERN_LEN_MAX: usize = 512;
/// Most cron expressions of a script, and the longest, in bytes.
pub const CRONS_MAX: usize = 32;
/// See [`CRONS_MAX`].
pub const CRON_LEN_MAX: usize = 128;
/// Most static assets of a version.
pub const ASSETS_MAX: usize = 20_000;
/// Longest path of an asset, in bytes.
pub const ASSET_PATH_LEN_MAX: usize = 1_024;
/// All paths of a version's assets, in bytes: their list is one value.
pub const ASSET_PATHS_LEN_MAX: usize = 8 * 1024 * 1024;
/// Longest static asset, in bytes.
pub const ASSET_LEN_MAX: usize = VALUE_LEN_MAX;
/// Bytes and files that a client is asked to send in one request.
pub const BUCKET_LEN_MAX: u64 = 30 * 1024 * 1024;
/// See [`BUCKET_LEN_MAX`].
pub const BUCKET_FILES_MAX: usize = 500;
/// How long an upload of assets may take, in seconds.
pub const SESSION_SECS: u64 = 3_600;
/// A file that no version uses goes once nobody has wanted it for this long: a version that uses it may be on its way
/// from a node that can't be reached.
pub const FILE_GRACE_MS: u64 = 7 * 24 * 3600 * 1000;
/// How coarse "when it was last wanted" is.
pub const FILE_USE_NOTED_EVERY_MS: u64 = 24 * 3600 * 1000;
/// What is of no more use is looked for this often, after a deployment.
pub const SWEEP_EVERY_MS: u64 = 3_600_000;
/// Longest author, source or other short text, in characters.
pub const TEXT_LEN_MAX: usize = 256;

//! What can go wrong with a deployment, in sentences that say what to do.

use super::limits::{
    ANNOTATIONS_LEN_MAX, ASSET_LEN_MAX, ASSETS_MAX, BINDINGS_MAX, CODE_LEN_MAX, CRONS_MAX, MODULE_LEN_MAX, MODULES_MAX,
    NAME_LEN_MAX, ROUTES_MAX, SCRIPTS_MAX, VARIABLE_LEN_MAX,
};
use crate::kv::KvError;

/// Why something was not deployed, changed or shown. Nothing that runs was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// No such script in this account.
    #[error("This Worker does not exist on your account.")]
    ScriptNotFound,
    /// No such version of the script.
    #[error("There is no version {0} of this Worker here. Older ones are given up in time; a new one takes a moment.")]
    VersionNotFound(String),
    /// No such deployment.
    #[error("There is no deployment {0} of this Worker here.")]
    DeploymentNotFound(String),
    /// No such secret.
    #[error("There is no secret {0:?} in the latest version of this Worker.")]
    SecretNotFound(String),
    /// No such route.
    #[error("There is no such route.")]
    RouteNotFound,
    /// The engine of this node can't run it.
    #[error("{0}")]
    Unfit(String),
    /// The name can't be one.
    #[error(
        "The script name {0:?} can't be used: it has 1 to {NAME_LEN_MAX} lower-case letters, digits, \"-\" and \"_\", \
         and begins with a letter or a digit."
    )]
    Name(String),
    /// All the scripts there may be.
    #[error("This account has {SCRIPTS_MAX} scripts, the most there can be: delete one first.")]
    TooManyScripts,
    /// No code.
    #[error("There is neither a script nor static assets in the upload.")]
    NoCode,
    /// The main module is not among the parts.
    #[error("No such module: the main module {0:?} is not among the uploaded parts{1}.")]
    NoMain(String, String),
    /// A module is too long.
    #[error("The module {0:?} has {1} bytes, at most {MODULE_LEN_MAX} are allowed.")]
    ModuleTooLarge(String, usize),
    /// All modules together are too long.
    #[error("The script has more than {CODE_LEN_MAX} bytes in all its modules, the limit.")]
    CodeTooLarge,
    /// Too many modules.
    #[error("The script has more than {MODULES_MAX} modules, the limit.")]
    TooManyModules,
    /// Two modules of one name.
    #[error("There are two modules named {0:?}.")]
    SameModule(String),
    /// A module's name can't be one.
    #[error("The module name {0:?} can't be used: it is empty, too long, or has control characters.")]
    ModuleName(String),
    /// Something about a binding is wrong.
    #[error("binding {name:?}: {why}")]
    Binding {
        /// Its name.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A binding to a namespace that is not there.
    #[error("binding {name:?}: KV namespace '{id}' not found.")]
    NamespaceMissing {
        /// Its name.
        name: String,
        /// The namespace, as given.
        id: String,
    },
    /// Something else has the name of a secret.
    #[error("Binding name '{0}' already in use. Please use a different name and try again.")]
    BindingTaken(String),
    /// Too many bindings.
    #[error("There are more than {BINDINGS_MAX} bindings, the limit.")]
    TooManyBindings,
    /// A text or JSON binding, or a secret, is too long.
    #[error("binding {0:?} has {1} bytes, at most {VARIABLE_LEN_MAX} are allowed")]
    VariableTooLarge(String, usize),
    /// Annotations or settings too long.
    #[error("The annotations and settings have {0} bytes of JSON, at most {ANNOTATIONS_LEN_MAX} are allowed.")]
    RemarksTooLarge(usize),
    /// The compatibility date can't be one.
    #[error("The compatibility date {0:?} is no date of the form YYYY-MM-DD.")]
    Date(String),
    /// The shares of a deployment are wrong.
    #[error("Invalid deployment: {0}.")]
    Shares(&'static str),
    /// A pattern can't be a route.
    #[error("The route pattern {pattern:?} can't be used: {why}.")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Too many routes.
    #[error("This account has {ROUTES_MAX} routes, the most there can be: delete one first.")]
    TooManyRoutes,
    /// Another script has the route.
    #[error("The route {pattern:?} is already assigned to {owner}: delete it there first.")]
    RouteTaken {
        /// As given.
        pattern: String,
        /// Whose it is.
        owner: String,
    },
    /// A cron expression can't be read.
    #[error("The cron expression {cron:?} can't be used: {why}.")]
    Cron {
        /// As given.
        cron: String,
        /// What is wrong.
        why: String,
    },
    /// Too many crons.
    #[error("A script has at most {CRONS_MAX} cron triggers.")]
    TooManyCrons,
    /// The subdomain can't be one.
    #[error(
        "The subdomain {0:?} can't be used: it has 1 to 63 lower-case letters, digits and \"-\", and no \"-\" at its ends."
    )]
    Subdomain(String),
    /// Another account has the subdomain.
    #[error("The subdomain {0:?} is taken: choose another.")]
    SubdomainTaken(String),
    /// The manifest of assets can't be used.
    #[error("The manifest of static assets can't be used: {0}.")]
    Manifest(String),
    /// Too many assets.
    #[error("There are more than {ASSETS_MAX} static assets, the limit.")]
    TooManyAssets,
    /// An asset is too long.
    #[error("The static asset {0} has more than {ASSET_LEN_MAX} bytes, the limit.")]
    AssetTooLarge(String),
    /// The upload session is over, or never was.
    #[error("The upload of static assets has expired, or was begun elsewhere and has not arrived: deploy again.")]
    NoSession,
    /// Files are missing.
    #[error("{0} of the static assets were not uploaded: deploy again.")]
    AssetsMissing(usize),
    /// A file that was not asked for.
    #[error("The file {0:?} is not among those that this upload session asked for.")]
    StrangeAsset(String),
    /// Storage refused.
    #[error(transparent)]
    Kv(#[from] KvError),
}

//! From the path below `/accounts/{account}/workers/` to what of Workers it addresses.

/// What is addressed. Names and ids are as they stand in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// All scripts.
    Scripts,
    /// One script.
    Script(&'a str),
    /// Its code.
    Content(&'a str),
    /// What a version has beside its code.
    Settings(&'a str),
    /// What is set for it whatever its version.
    ScriptSettings(&'a str),
    /// Whether it is served at its own name.
    ScriptSubdomain(&'a str),
    /// When it runs by itself.
    Schedules(&'a str),
    /// Its routes, all at once.
    ScriptRoutes(&'a str),
    Secrets(&'a str),
    Secret(&'a str, &'a str),
    /// Several secrets at once.
    SecretsBulk(&'a str),
    Versions(&'a str),
    Version(&'a str, &'a str),
    Deployments(&'a str),
    Deployment(&'a str, &'a str),
    Tails(&'a str),
    Tail(&'a str, &'a str),
    /// Where an upload of static assets begins.
    AssetSession(&'a str),
    /// Where static assets are sent.
    AssetUpload,
    /// The label of the account's scripts.
    Subdomain,
    /// What is set for the account.
    AccountSettings,
    /// A script as a service with environments, of which there is one.
    Service(&'a str),
    /// A script as a resource.
    Resource(&'a str),
    /// The newest version of a script as a resource.
    ResourceLatest(&'a str),
    /// Host names that are routes in full: there are none.
    Domains,
    /// There are no durable objects.
    DurableObjects,
}

impl<'a> Place<'a> {
    /// `None` if there is nothing of that address.
    pub(crate) fn of(segments: &[&'a str]) -> Option<Self> {
        Some(match segments {
            ["scripts"] => Self::Scripts,
            ["scripts", name] => Self::Script(name),
            ["scripts", name, "content"] | ["scripts", name, "content", "v2"] => Self::Content(name),
            ["scripts", name, "settings"] => Self::Settings(name),
            ["scripts", name, "script-settings"] => Self::ScriptSettings(name),
            ["scripts", name, "subdomain"] => Self::ScriptSubdomain(name),
            ["scripts", name, "schedules"] => Self::Schedules(name),
            ["scripts", name, "routes"] => Self::ScriptRoutes(name),
            ["scripts", name, "secrets"] => Self::Secrets(name),
            ["scripts", name, "secrets", secret] => Self::Secret(name, secret),
            ["scripts", name, "secrets-bulk"] => Self::SecretsBulk(name),
            ["scripts", name, "versions"] => Self::Versions(name),
            ["scripts", name, "versions", version] => Self::Version(name, version),
            ["scripts", name, "deployments"] => Self::Deployments(name),
            ["scripts", name, "deployments", deployment] => Self::Deployment(name, deployment),
            ["scripts", name, "tails"] => Self::Tails(name),
            ["scripts", name, "tails", tail] => Self::Tail(name, tail),
            ["scripts", name, "assets-upload-session"] => Self::AssetSession(name),
            ["assets", "upload"] => Self::AssetUpload,
            ["subdomain"] => Self::Subdomain,
            ["account-settings"] => Self::AccountSettings,
            ["services", name] => Self::Service(name),
            ["workers", name] => Self::Resource(name),
            ["workers", name, "versions", "latest"] => Self::ResourceLatest(name),
            ["domains"] => Self::Domains,
            ["durable_objects", "namespaces"] => Self::DurableObjects,
            _ => return None,
        })
    }

    /// What it is called in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Scripts => "scripts",
            Self::Script(_) | Self::Service(_) | Self::Resource(_) => "script",
            Self::Content(_) => "script_content",
            Self::Settings(_) | Self::ScriptSettings(_) => "script_settings",
            Self::ScriptSubdomain(_) | Self::Subdomain => "subdomain",
            Self::Schedules(_) => "schedules",
            Self::ScriptRoutes(_) => "routes",
            Self::Secrets(_) | Self::Secret(..) | Self::SecretsBulk(_) => "secrets",
            Self::Versions(_) | Self::Version(..) | Self::ResourceLatest(_) => "versions",
            Self::Deployments(_) | Self::Deployment(..) => "deployments",
            Self::Tails(_) | Self::Tail(..) => "tails",
            Self::AssetSession(_) | Self::AssetUpload => "assets",
            Self::AccountSettings | Self::Domains | Self::DurableObjects => "workers",
        }
    }

    /// The methods that it takes, for who tries another.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Self::Script(_) => "GET, PUT, DELETE",
            Self::Content(_) | Self::Schedules(_) | Self::Subdomain | Self::ScriptRoutes(_) => "GET, PUT",
            Self::Settings(_) | Self::ScriptSettings(_) => "GET, PATCH",
            Self::ScriptSubdomain(_) => "GET, POST, DELETE",
            Self::Secrets(_) => "GET, PUT",
            Self::Secret(..) => "GET, DELETE",
            Self::SecretsBulk(_) | Self::ResourceLatest(_) => "PATCH",
            Self::Versions(_) | Self::Deployments(_) | Self::Tails(_) => "GET, POST",
            Self::Tail(..) => "DELETE",
            Self::AssetSession(_) | Self::AssetUpload => "POST",
            Self::Service(_) => "GET, DELETE",
            Self::Scripts
            | Self::Version(..)
            | Self::Deployment(..)
            | Self::AccountSettings
            | Self::Resource(_)
            | Self::Domains
            | Self::DurableObjects => "GET",
        }
    }
}
